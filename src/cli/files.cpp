#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <deque>
#include <fstream>
#include <random>
#include <string_view>
#include <system_error>

#include "cli/cli.h"
#include "dhp/error.h"

namespace dhp::cli {
namespace {

namespace fs = std::filesystem;

/// Why the last call failed, and what to do about it.
std::string reason(const fs::path& path, int error) {
  std::error_code ignored;
  const fs::path folder = path.parent_path();
  if (error == ENOENT && !folder.empty() && !fs::exists(folder, ignored)) {
    return "there is no folder " + folder.string() + "; make it, or give another path";
  }
  return std::strerror(error);
}

/// False; errno stays what it is.
bool close_failed(int file) {
  const int why = errno;
  ::close(file);
  errno = why;
  return false;
}

/// To a file that is made for it, under a name that nobody foresees: links that others have put there are not followed.
bool write_new(const fs::path& path, const std::string& text) {
  errno = 0;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (file < 0) return false;
  const char* next = text.data();
  for (std::size_t left = text.size(); left > 0;) {
    const ssize_t written = ::write(file, next, left);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return close_failed(file);
    next += written;
    left -= static_cast<std::size_t>(written);
  }
  // Else a crash after the rename may leave an empty file where the old one was.
  if (::fsync(file) != 0) return close_failed(file);
  return ::close(file) == 0;
}

std::string random_suffix() {
  std::random_device random;
  constexpr int kWords = 3;
  std::string suffix = ".tmp";
  for (int word = 0; word < kWords; ++word) suffix += std::to_string(random());
  return suffix;
}

/// A link on the way to the file, or at its end, that somebody else has laid in a folder for all, such as /tmp: it
/// would lead our writing to our own files. Empty if there is none. The rule is the kernel's (fs.protected_symlinks): a
/// link may be followed where it is ours, or of the owner of its folder. Links are looked at as the kernel follows
/// them.
fs::path foreign_link(const std::string& file) {
  constexpr int kMostLinks = 40;  // more the kernel does not follow
  std::error_code error;
  const fs::path whole = fs::absolute(file, error);
  std::deque<fs::path> ahead(whole.begin(), whole.end());
  fs::path place;
  for (int links = 0; !ahead.empty() && links <= kMostLinks;) {
    fs::path next = place / ahead.front();
    ahead.pop_front();
    struct stat link {};
    struct stat folder {};
    if (::lstat(next.c_str(), &link) != 0) return {};  // nothing there that leads on
    if (!S_ISLNK(link.st_mode)) {
      place = next;
      continue;
    }
    if (::stat(place.c_str(), &folder) != 0) return {};
    const bool foreign = link.st_uid != ::geteuid() && link.st_uid != folder.st_uid;
    if (foreign && (folder.st_mode & S_IWOTH) != 0) return next;
    const fs::path target = fs::read_symlink(next, error);
    if (error) return {};
    ahead.insert(ahead.begin(), target.begin(), target.end());  // an absolute one begins with "/", which replaces place
    ++links;
  }
  return {};
}

std::array<char, PATH_MAX> partial_path{};  // of the file that is being written; read by the handler alone

extern "C" void on_interrupt(int /*signal*/) {
  if (partial_path[0] != 0) ::unlink(partial_path.data());
  constexpr std::string_view kText = "dhp: interrupted\n";
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, kText.data(), kText.size());
  ::_exit(130);
}

/// Names the file for the handler while it lives.
class Unfinished {
 public:
  explicit Unfinished(const fs::path& path) {
    if (path.string().size() + 1 > partial_path.size()) return;
    std::copy_n(path.c_str(), path.string().size() + 1, partial_path.begin());
  }
  ~Unfinished() { partial_path[0] = 0; }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;
};

bool write(const fs::path& path, const std::string& text) {
  errno = 0;
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream << text;
  stream.close();
  return !stream.fail();
}

/// Devices, pipes and whatever stands for an open file are written to; only files are replaced.
bool is_replaceable(const fs::path& path) {
  std::error_code ignored;
  if (path.string().starts_with("/dev/") || path.string().starts_with("/proc/")) return false;
  const fs::file_status status = fs::status(path, ignored);
  return !fs::exists(status) || fs::is_regular_file(status);
}

}  // namespace

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

void write_atomically(const std::string& file, const std::string& text) {
  const auto fail = [&](const std::string& why) { throw InputError(file, "", "cannot be written: " + why); };
  if (const fs::path link = foreign_link(file); !link.empty()) {
    fail(link.string() + " is a link that another user has made; give another path");
  }
  std::error_code error;
  if (fs::is_directory(file, error)) fail("it is a folder; add the name of a file");
  if (!is_replaceable(file)) {
    if (!write(file, text)) fail(reason(file, errno));
    return;
  }
  // What a link points to is replaced, the link stays.
  const fs::path target = fs::is_symlink(file, error) ? fs::weakly_canonical(file, error) : fs::path(file);
  const fs::path temporary = target.string() + random_suffix();
  const Unfinished unfinished(temporary);
  const auto give_up = [&](const std::string& why) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    fail(why);
  };
  if (!write_new(temporary, text)) give_up(reason(target, errno));
  fs::rename(temporary, target, error);
  if (error) give_up(error.message());
}

}  // namespace dhp::cli
