#pragma once

namespace dhp::cli {

/// "0.2.0 (4f0c6a1b2c3d)": the version, and the commit that was built, with "-dirty" where files differ from it; of
/// sources outside git the version alone. Made at every build (cmake/version.cmake).
const char* version();

}  // namespace dhp::cli
