#pragma once

#include <filesystem>

namespace dhp {

/// A link on the way to the file, or at its end, that somebody else has laid in a folder for all, such as /tmp: it
/// would lead our writing to our own files. Empty if there is none. The rule is the kernel's (fs.protected_symlinks): a
/// link may be followed where it is ours, or of the owner of its folder. Links are looked at as the kernel follows
/// them, those that a link leads over included.
std::filesystem::path foreign_link(const std::filesystem::path& file);

}  // namespace dhp
