#include "base/links.h"

#include <sys/stat.h>
#include <unistd.h>

#include <deque>
#include <system_error>

namespace dhp {

namespace fs = std::filesystem;

fs::path foreign_link(const fs::path& file) {
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

}  // namespace dhp
