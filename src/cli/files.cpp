#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <random>
#include <system_error>

#include "base/links.h"
#include "cli/cli.h"
#include "dhp/error.h"

namespace dhp::cli {
namespace {

namespace fs = std::filesystem;

/// Why a call failed, and what to do about it.
std::string failure_text(const fs::path& path, int error) {
  std::error_code ignored;
  const fs::path folder = path.parent_path();
  if (error == ENOENT && !folder.empty() && !fs::exists(folder, ignored)) {
    return "there is no folder " + folder.string() + "; make it, or give another path";
  }
  return std::strerror(error);
}

void require_done(bool done) {
  if (!done) throw std::system_error(errno, std::generic_category());
}

/// A file open for writing. Throws std::system_error.
class OutputFile {
 public:
  OutputFile(const fs::path& path, int flags)
      : file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666)) {
    require_done(file_ >= 0);
  }
  ~OutputFile() {
    if (file_ >= 0) ::close(file_);
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t written = ::write(file_, text.data(), text.size());
      require_done(written >= 0 || errno == EINTR);
      if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
    }
  }
  void sync() const { require_done(::fsync(file_) == 0); }
  void close() {
    const int file = file_;
    file_ = -1;
    require_done(::close(file) == 0);
  }

 private:
  int file_;
};

std::string random_suffix() {
  std::random_device random;
  constexpr int kWords = 3;
  std::string suffix = ".tmp";
  for (int word = 0; word < kWords; ++word) suffix += std::to_string(random());
  return suffix;
}

std::array<char, PATH_MAX> unfinished_path{};  // read by the handler

/// Removes the file when it leaves, or when a signal ends the program.
class Unfinished {
 public:
  explicit Unfinished(const fs::path& path) : path_(path) {
    if (path.string().size() + 1 > unfinished_path.size()) return;
    std::copy_n(path.c_str(), path.string().size() + 1, unfinished_path.begin());
  }
  ~Unfinished() {
    ::unlink(path_.c_str());  // unless it has been renamed
    unfinished_path[0] = 0;
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

 private:
  fs::path path_;
};

/// Devices, pipes and whatever stands for an open file are written to; only files are replaced.
bool is_replaceable(const fs::path& path) {
  std::error_code ignored;
  if (path.string().starts_with("/dev/") || path.string().starts_with("/proc/")) return false;
  const fs::file_status status = fs::status(path, ignored);
  return !fs::exists(status) || fs::is_regular_file(status);
}

extern "C" void on_interrupt(int /*signal*/) {
  if (unfinished_path[0] != 0) ::unlink(unfinished_path.data());
  constexpr std::string_view kText = "dhp: interrupted\n";
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, kText.data(), kText.size());
  ::_exit(130);
}

}  // namespace

void write_atomically(const std::string& file, const std::function<void(const TextSink& write)>& make) {
  const auto fail = [&](const std::string& why) { throw InputError(file, "", "cannot be written: " + why); };
  if (const fs::path link = foreign_link(file); !link.empty()) {
    fail(link.string() + " is a link that another user has made; give another path");
  }
  std::error_code ignored;
  if (fs::is_directory(file, ignored)) fail("it is a folder; add the name of a file");
  const auto fill = [&](const OutputFile& out) { make([&](std::string_view text) { out.write(text); }); };
  const fs::path target = fs::is_symlink(file, ignored) ? fs::weakly_canonical(file, ignored) : fs::path(file);
  try {
    if (!is_replaceable(file)) {
      OutputFile out(file, O_TRUNC);
      fill(out);
      return out.close();
    }
    // Made anew, under a name that nobody foresees: links that others have put there are not followed.
    const fs::path temporary = target.string() + random_suffix();
    const Unfinished unfinished(temporary);
    OutputFile out(temporary, O_EXCL | O_NOFOLLOW);
    fill(out);
    out.sync();  // else a crash after the rename may leave an empty file where the old one was
    out.close();
    fs::rename(temporary, target);
  } catch (const std::system_error& error) {
    fail(failure_text(target, error.code().value()));
  }
}

void write_atomically(const std::string& file, std::string_view text) {
  write_atomically(file, [&](const auto& write) { write(text); });
}

void end_cleanly_on_interrupt() {
  // Whoever starts this with interrupts ignored (trap '' INT, nohup) means it, for what we run too.
  struct sigaction before {};
  if (::sigaction(SIGINT, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) return;
  std::signal(SIGINT, on_interrupt);
}

void refuse_overwriting(const std::string& file, const std::vector<std::string>& inputs) {
  std::error_code error;
  if (file.empty() || !fs::is_regular_file(file, error)) return;
  for (const std::string& input : inputs) {
    if (!fs::equivalent(file, input, error) || error) continue;
    const std::string name = file == input ? "" : " (" + input + ")";
    throw InputError(file, "", "is an input of this command" + name + " and would be overwritten; give another path");
  }
}

}  // namespace dhp::cli
