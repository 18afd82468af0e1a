#include "cli/show/gantt.h"

#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include "base/index.h"
#include "cli/show/report.h"

namespace dhp::cli {
namespace {

constexpr int kIdle = -1;

/// "7" for seven ranks, "a" for ten, "#" beyond 61.
std::string symbol_of(int degree) {
  constexpr std::string_view kSymbols = "?123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  return std::string(1, index(degree) < kSymbols.size() ? kSymbols[index(degree)] : '#');
}

class Gantt {
 public:
  Gantt(const Plan& plan, const Timeline& timeline, const Terminal& terminal) : plan_(plan), timeline_(timeline) {
    std::set<int> degrees;
    tasks_of_.resize(index(plan.ranks));
    for (const Task& task : plan.tasks) {
      degrees.insert(task.degree());
      for (const Rank rank : task.ranks) tasks_of_[index(rank)].push_back(task.id);
    }
    degrees_.assign(degrees.begin(), degrees.end());
    constexpr int kFewestCells = 20;
    cells_ = std::max(kFewestCells, terminal.width - static_cast<int>(label(plan.ranks - 1).size()));
    colour_ = terminal.colour;
  }

  std::string text(int most_rows) const {
    const int rows = most_rows > 0 ? std::min(most_rows, plan_.ranks) : plan_.ranks;
    std::string text = title(rows);
    for (int row = 0; row < rows; ++row) {
      const auto rank = static_cast<Rank>(static_cast<std::int64_t>(row) * plan_.ranks / rows);
      text += label(rank) + bars(tasks_in_cells(rank)) + '\n';
    }
    const std::string end = seconds_text(timeline_.makespan_s);
    std::string axis(label(plan_.ranks - 1).size(), ' ');
    axis += '0';
    const std::size_t width = axis.size() - 1 + index(cells_);
    axis.resize(std::max(axis.size() + 1, width - std::min(width, end.size())), ' ');
    return text + axis + end + '\n';
  }

 private:
  std::string title(int rows) const {
    std::string text = "ranks and time";
    if (rows < plan_.ranks) {
      text += plan_.ranks % rows == 0 ? ", one rank of every " + std::to_string(plan_.ranks / rows)
                                      : ", " + std::to_string(rows) + " of " + std::to_string(plan_.ranks) + " ranks";
      text += " (--all shows all)";
    }
    text += "; ranks of a group:";
    for (const int degree : degrees_) {
      text += ' ';
      if (colour_) {
        text += paint(degree);
        text += "█";
        text += kPlain;
      } else if (symbol_of(degree) != std::to_string(degree)) {
        text += symbol_of(degree) + "=";
      }
      text += std::to_string(degree);
    }
    return text + "; idle ·\n";
  }

  std::string label(Rank rank) const {
    const std::size_t width = std::to_string(plan_.ranks - 1).size();
    const std::string number = std::to_string(rank);
    return std::string(width - number.size(), ' ') + number + ' ';
  }

  /// By cell the task that the rank spends most of it with, or kIdle.
  std::vector<int> tasks_in_cells(Rank rank) const {
    const double cell_s = timeline_.makespan_s / cells_;
    const std::vector<int>& tasks = tasks_of_[index(rank)];
    std::vector<int> result;
    std::size_t first = 0;  // of the tasks that have not ended
    for (int cell = 0; cell < cells_; ++cell) {
      const double begin = cell * cell_s;
      const double end = begin + cell_s;
      while (first < tasks.size() && timeline_.end_s[index(tasks[first])] <= begin) ++first;
      double busy_s = 0.0;
      double longest_s = 0.0;
      int longest = kIdle;
      for (std::size_t i = first; i < tasks.size() && timeline_.start_s[index(tasks[i])] < end; ++i) {
        const double overlap_s =
            std::min(end, timeline_.end_s[index(tasks[i])]) - std::max(begin, timeline_.start_s[index(tasks[i])]);
        busy_s += overlap_s;
        if (overlap_s <= longest_s) continue;
        longest_s = overlap_s;
        longest = tasks[i];
      }
      result.push_back(busy_s > cell_s / 2 ? longest : kIdle);
    }
    return result;
  }

  std::string bars(const std::vector<int>& tasks) const {
    std::string text;
    int painted = 0;  // degree of the colour in force, 0 for none
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      const int degree = tasks[i] == kIdle ? 0 : plan_.tasks[index(tasks[i])].degree();
      if (colour_ && degree != painted) text += degree == 0 ? kPlain : paint(degree);
      painted = degree;
      if (degree == 0) {
        text += "·";
        continue;
      }
      const bool begins = i == 0 || tasks[i - 1] != tasks[i];
      const bool goes_on = i + 1 < tasks.size() && tasks[i + 1] == tasks[i];
      if (colour_) {
        text += begins ? "▐" : "█";
      } else if (begins && goes_on) {
        text += '|';
      } else {
        text += symbol_of(degree);
      }
    }
    return colour_ && painted != 0 ? text + kPlain : text;
  }

  /// Colours of the 256 that differ in brightness, too; as many degrees share one as there are more.
  std::string paint(int degree) const {
    constexpr std::array kColours = {75, 114, 179, 203, 141, 80, 215, 169, 107, 67};
    const auto place = std::lower_bound(degrees_.begin(), degrees_.end(), degree) - degrees_.begin();
    return "\x1b[38;5;" + std::to_string(kColours[static_cast<std::size_t>(place) % kColours.size()]) + 'm';
  }

  static constexpr const char* kPlain = "\x1b[0m";

  const Plan& plan_;
  const Timeline& timeline_;
  std::vector<std::vector<int>> tasks_of_;  ///< by rank, in order of time
  std::vector<int> degrees_;                ///< of the plan, ascending
  int cells_ = 0;
  bool colour_ = false;
};

}  // namespace

std::string gantt_text(const Plan& plan, const Timeline& timeline, const Terminal& terminal, int most_rows) {
  if (plan.tasks.empty() || !(timeline.makespan_s > 0.0)) return "";
  return Gantt(plan, timeline, terminal).text(most_rows);
}

}  // namespace dhp::cli
