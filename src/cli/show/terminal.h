#pragma once

namespace dhp::cli {

/// What standard output can show.
struct Terminal {
  int width = 100;      ///< columns; 100 where it is no terminal
  bool colour = false;  ///< a terminal that is not dumb, and NO_COLOR (https://no-color.org) is unset or empty
};
Terminal standard_output();

}  // namespace dhp::cli
