#include "cli/show/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace dhp::cli {
namespace {

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

Terminal standard_output() {
  Terminal terminal;
  if (::isatty(STDOUT_FILENO) == 0) return terminal;
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) terminal.width = size.ws_col;
  terminal.colour = environment("NO_COLOR").empty() && environment("TERM") != "dumb";
  return terminal;
}

}  // namespace dhp::cli
