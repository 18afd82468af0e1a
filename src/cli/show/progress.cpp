#include "cli/show/progress.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>

namespace dhp::cli {
namespace {

constexpr const char* kEraseLine = "\r\033[K";

}  // namespace

Progress::Progress(int total) : total_(std::max(1, total)), visible_(::isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  if (visible_) std::cerr << kEraseLine << std::flush;
}

void Progress::show(int done, const std::string& what) {
  if (!visible_) return;
  constexpr int kWidth = 30;
  const int full = kWidth * done / total_;
  std::string bar;
  for (int cell = 0; cell < kWidth; ++cell) bar += cell < full ? "█" : "░";
  std::cerr << kEraseLine << bar << ' ' << done << '/' << total_ << ' ' << what << std::flush;
}

}  // namespace dhp::cli
