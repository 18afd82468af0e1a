#pragma once

namespace dhp::rt {

/// Whether Ctrl-C has come since `exit_on_interrupt` (failure_record.h).
bool is_interrupted();
[[noreturn]] void exit_interrupted();

}  // namespace dhp::rt
