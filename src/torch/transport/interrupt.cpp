#include "torch/transport/interrupt.h"

#include <unistd.h>
#include <atomic>
#include <csignal>
#include <thread>

#include "torch/transport/failure_record.h"

namespace dhp::rt {
namespace {

constexpr int kInterrupted = 130;        // the exit code of shells
constexpr unsigned kTellingSeconds = 2;  // for the thread of a failure record, which wakes every second

std::atomic<bool> interrupted = false;  // set by the handler, read by other threads

void on_alarm(int /*signal*/) { ::_exit(kInterrupted); }

void on_interrupt(int /*signal*/) {
  if (interrupted.exchange(true)) ::_exit(kInterrupted);
  ::alarm(kTellingSeconds);
}

void handle(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  ::sigaction(signal, &action, nullptr);
}

}  // namespace

bool is_interrupted() { return interrupted; }

void exit_interrupted() { ::_exit(kInterrupted); }

void exit_on_interrupt() {
  handle(SIGALRM, on_alarm);
  handle(SIGINT, on_interrupt);
}

void exit_within(std::chrono::milliseconds time, int code) {
  std::thread([time, code] {
    std::this_thread::sleep_for(time);
    ::_exit(code);
  }).detach();
}

}  // namespace dhp::rt
