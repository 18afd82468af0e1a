#include "sim/executor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <queue>

#include "base/index.h"
#include "base/number_limits.h"
#include "dhp/error.h"
#include "sim/shared_links.h"

namespace dhp::sim {
namespace {

/// Decides which tasks may start: those that come next on all of their ranks, behind no barrier.
class Starter {
 public:
  explicit Starter(const Plan& plan) : plan_(plan), waiting_ranks_(plan.tasks.size()), of_rank_(index(plan.ranks)) {
    for (const Task& task : plan.tasks) {
      for (const Rank rank : task.ranks) of_rank_[index(rank)].push_back(task.id);
      waiting_ranks_[index(task.id)] = task.degree();
    }
    next_.assign(of_rank_.size(), 0);
    gate_ = batch_end(0);
    held_ = gate_;
  }

  /// The tasks that start with the step.
  std::vector<int> first() {
    std::vector<int> ready;
    for (Rank rank = 0; rank < plan_.ranks; ++rank) arrive(rank, ready);
    return ready;
  }

  /// The tasks that start when this one has ended.
  std::vector<int> after(int task) {
    std::vector<int> ready;
    for (const Rank rank : plan_.tasks[index(task)].ranks) {
      ++next_[index(rank)];
      arrive(rank, ready);
    }
    if (--held_ == 0 && gate_ < std::ssize(plan_.tasks)) {
      const int begin = gate_;
      gate_ = batch_end(begin);
      held_ = gate_ - begin;
      for (int held = begin; held < gate_; ++held) {
        if (waiting_ranks_[index(held)] == 0) ready.push_back(held);
      }
    }
    return ready;
  }

 private:
  /// `rank` is ready for its next task.
  void arrive(Rank rank, std::vector<int>& ready) {
    const std::vector<int>& tasks = of_rank_[index(rank)];
    if (next_[index(rank)] == tasks.size()) return;
    const int task = tasks[next_[index(rank)]];
    if (--waiting_ranks_[index(task)] == 0 && task < gate_) ready.push_back(task);
  }

  /// One past the last task that no barrier parts from task `begin`.
  int batch_end(int begin) const {
    const int tasks = static_cast<int>(plan_.tasks.size());
    if (plan_.schedule == Schedule::free) return tasks;
    int end = begin;
    while (end < tasks && plan_.tasks[index(end)].micro_batch == plan_.tasks[index(begin)].micro_batch) ++end;
    return end;
  }

  const Plan& plan_;
  std::vector<int> waiting_ranks_;         // by task: ranks that are not there yet
  std::vector<std::vector<int>> of_rank_;  // tasks
  std::vector<std::size_t> next_;          // by rank, in of_rank_
  int gate_ = 0;                           // tasks from here on are behind a barrier
  int held_ = 0;                           // tasks before the barrier that have not ended
};

/// How far a program has come.
struct Progress {
  const Program* program = nullptr;
  std::size_t part = 0;
  int blocks_started = 0;
  int transfers_started = 0;
  int transfers_done = 0;
  bool computing = false;
  double block_start_s = 0.0;
  double wait_start_s = 0.0;
  double transfer_start_s = 0.0;
  int open_ends = 0;  // of the transfer under way: its own links, and shared ones by stream

  const Part& now() const { return (*program)[part]; }
};

class Executor {
 public:
  Executor(const Plan& plan, const Cluster& cluster, const std::vector<Program>& programs, const Program& reduce,
           bool record)
      : plan_(plan), links_(cluster), starter_(plan), reduce_(reduce), record_(record), progress_(programs.size() + 1) {
    for (std::size_t i = 0; i < programs.size(); ++i) progress_[i].program = &programs[i];
    progress_.back().program = &reduce;
    step_.tasks.resize(programs.size());
  }

  /// Nothing where shared links need more looks.
  std::optional<SimulatedStep> run(std::int64_t most_looks) {
    for (const int task : starter_.first()) start_task(task);
    if (plan_.tasks.empty()) start_reduce();
    double arrival_s = kInfinity;  // of the next stream on shared links
    while (!events_.empty() || arrival_s < kInfinity) {
      now_s_ = std::min(arrival_s, events_.empty() ? kInfinity : events_.top().time_s);
      if (arrival_s == now_s_) {
        for (const int task : links_.arrive(now_s_)) end_of_transfer(task);
      }
      while (!events_.empty() && events_.top().time_s == now_s_) {
        const Event event = events_.top();
        events_.pop();
        handle(event);
      }
      if (links_.any()) arrival_s = links_.settle(now_s_);
      if (links_.looks() > most_looks) return std::nullopt;
    }
    if (!done_) refuse();  // a stream of no pace at all never arrives
    return std::move(step_);
  }

 private:
  struct Event {
    enum class Kind { lead_end, block_end, latency_end, own_links_end };
    Kind kind;
    double time_s;
    std::uint64_t order;  // events of one time take place in the order in which they were foreseen
    int task;

    bool operator<(const Event& other) const {
      return time_s != other.time_s ? time_s > other.time_s : order > other.order;
    }
  };

  int reduce_id() const { return static_cast<int>(plan_.tasks.size()); }

  [[noreturn]] static void refuse() {
    throw InputError("cost", "", "a task of the plan takes longer than a number can say; are the units right?");
  }

  void push(Event::Kind kind, double time_s, int task) {
    if (!std::isfinite(time_s)) refuse();
    events_.push({kind, time_s, next_order_++, task});
  }

  void handle(const Event& event) {
    switch (event.kind) {
      case Event::Kind::lead_end:
        return end_lead(event.task);
      case Event::Kind::block_end:
        return end_block(event.task);
      case Event::Kind::latency_end:
        return end_latency(event.task);
      case Event::Kind::own_links_end:
        return end_of_transfer(event.task);
    }
  }

  void start_task(int task) {
    step_.tasks[index(task)].start_s = now_s_;
    start_part(task);
  }

  void start_reduce() {
    step_.tasks_end_s = step_.reduce_end_s = now_s_;
    done_ = reduce_.empty();
    if (!done_) start_part(reduce_id());
  }

  void start_part(int task) {
    Progress& progress = progress_[index(task)];
    if (progress.part == progress.program->size()) return end_task(task);
    progress.blocks_started = progress.transfers_started = progress.transfers_done = 0;
    progress.block_start_s = now_s_;
    push(Event::Kind::lead_end, now_s_ + progress.now().lead_s, task);
  }

  void end_lead(int task) {
    Progress& progress = progress_[index(task)];
    note(task, progress.now().kind, 0, progress.block_start_s);
    if (progress.now().blocks == 0) return end_part(task);
    progress.wait_start_s = now_s_;
    start_block(task);
  }

  /// The next block, if its shard is there.
  void start_block(int task) {
    Progress& progress = progress_[index(task)];
    const Part& part = progress.now();
    const int block = progress.blocks_started;
    if (progress.computing || block == part.blocks || progress.transfers_done < block) return;
    if (now_s_ > progress.wait_start_s) {
      note(task, Segment::Kind::wait, block, progress.wait_start_s);
      if (task < reduce_id()) step_.tasks[index(task)].exposed_s += now_s_ - progress.wait_start_s;
    }
    progress.computing = true;
    progress.block_start_s = now_s_;
    ++progress.blocks_started;
    push(Event::Kind::block_end, now_s_ + (block == 0 ? part.first_block_s : part.block_s), task);
    start_transfer(task);
  }

  void end_block(int task) {
    Progress& progress = progress_[index(task)];
    note(task, Segment::Kind::block, progress.blocks_started - 1, progress.block_start_s);
    progress.computing = false;
    progress.wait_start_s = now_s_;
    if (progress.blocks_started == progress.now().blocks) return end_part(task);
    start_block(task);
  }

  /// The next transfer, if the one before is done and it is not too early.
  void start_transfer(int task) {
    Progress& progress = progress_[index(task)];
    const Part& part = progress.now();
    const int transfer = progress.transfers_started + 1;
    if (progress.transfers_started > progress.transfers_done || transfer > part.transfers()) return;
    if (progress.blocks_started <= std::max(0, transfer - part.ahead)) return;
    ++progress.transfers_started;
    progress.transfer_start_s = now_s_;
    progress.open_ends = 1;
    push(Event::Kind::own_links_end, now_s_ + part.transfer.latency_s + part.transfer.bytes_s, task);
    if (!links_.any() || part.transfer.streams.empty()) return;
    progress.open_ends += static_cast<int>(part.transfer.streams.size());
    push(Event::Kind::latency_end, now_s_ + part.transfer.latency_s, task);
  }

  void end_latency(int task) {
    for (const NodeStream& stream : progress_[index(task)].now().transfer.streams) links_.start(stream, task, now_s_);
  }

  /// One of the ends that a transfer has.
  void end_of_transfer(int task) {
    Progress& progress = progress_[index(task)];
    if (--progress.open_ends > 0) return;
    ++progress.transfers_done;
    note(task, Segment::Kind::transfer, progress.transfers_done, progress.transfer_start_s);
    if (task < reduce_id()) {
      const Transfer& transfer = progress.now().transfer;
      step_.tasks[index(task)].transfer_s += now_s_ - progress.transfer_start_s;
      step_.shard_bytes += transfer.bytes;
      for (const NodeStream& stream : transfer.streams) step_.crossing_bytes += stream.bytes;
    }
    start_transfer(task);
    start_block(task);
  }

  void end_part(int task) {
    Progress& progress = progress_[index(task)];
    if (task < reduce_id() && !progress.now().backward) step_.tasks[index(task)].forward_end_s = now_s_;
    ++progress.part;
    start_part(task);
  }

  void end_task(int task) {
    if (task == reduce_id()) {
      step_.reduce_end_s = now_s_;
      done_ = true;
      return;
    }
    step_.tasks[index(task)].end_s = now_s_;
    for (const int next : starter_.after(task)) start_task(next);
    if (++tasks_done_ == plan_.tasks.size()) start_reduce();
  }

  void note(int task, Segment::Kind kind, int step, double start_s) {
    if (!record_ || task == reduce_id() || now_s_ == start_s) return;
    const Part& part = progress_[index(task)].now();
    const double bytes = kind == Segment::Kind::transfer ? part.transfer.bytes : 0.0;
    step_.segments.push_back({kind, part.backward, task, step, start_s, now_s_, bytes});
  }

  const Plan& plan_;
  SharedLinks links_;
  Starter starter_;
  const Program& reduce_;
  bool record_;
  std::vector<Progress> progress_;  // by task, and last the reduction
  std::priority_queue<Event> events_;
  std::uint64_t next_order_ = 0;
  double now_s_ = 0.0;
  std::size_t tasks_done_ = 0;
  bool done_ = false;  // with the reduction, too
  SimulatedStep step_;
};

}  // namespace

SimulatedStep execute(const Plan& plan, const Cluster& cluster, const std::vector<Program>& programs,
                      const Program& reduce, bool record) {
  return *Executor(plan, cluster, programs, reduce, record).run(std::numeric_limits<std::int64_t>::max());
}

std::optional<SimulatedStep> execute_within(const Plan& plan, const Cluster& cluster,
                                            const std::vector<Program>& programs, const Program& reduce,
                                            std::int64_t most_looks) {
  return Executor(plan, cluster, programs, reduce, false).run(most_looks);
}

}  // namespace dhp::sim
