#pragma once

#include <cstddef>
#include <string>

namespace dhp {

/// Most bytes of a batch, of samples and of a plan: what has more is the wrong file, or a pipe without an end.
inline constexpr std::size_t kMostDataBytes = std::size_t{16} << 30;

/// The whole text of a file or a pipe. Throws InputError as read_text_file() does, and for devices: some have no end.
std::string read_data_file(const std::string& file, std::size_t most_bytes = kMostDataBytes);

}  // namespace dhp
