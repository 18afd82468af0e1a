#pragma once

#include <string>

namespace dhp::cli {

/// A bar on standard error while something long runs; nothing where that is no terminal. Gone when done.
class Progress {
 public:
  explicit Progress(int total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of the total; `what` comes next.
  void show(int done, const std::string& what);

 private:
  int total_;
  bool visible_;
};

}  // namespace dhp::cli
