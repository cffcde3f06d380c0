#include "io/af_xdp/early_pages.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace sluice::io::af_xdp {
namespace {

constexpr size_t kPageBytes = size_t{SLUICE_EARLY_PAGE_LINES} * sizeof(sluice_early_line);

absl::Status Failed(const char* what, int error) {
  return absl::ResourceExhaustedError(
      absl::StrCat("early filter: ", what, ": ", std::strerror(error)));
}

}  // namespace

EarlyPages::~EarlyPages() {
  for (const auto& [number, page] : pages_) {
    munmap(page.lines, kPageBytes);
    close(page.fd);
  }
}

absl::StatusOr<sluice_early_line*> EarlyPages::Lend(uint32_t number) {
  const auto found = pages_.find(number);
  if (found != pages_.end()) {
    std::memset(found->second.lines, 0, kPageBytes);
    return found->second.lines;
  }
  if (number >= SLUICE_EARLY_PAGES) return Failed("no page is left", ENOSPC);
  bpf_map_create_opts options{};
  options.sz = sizeof options;
  options.map_flags = BPF_F_MMAPABLE;
  const int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "early_page", sizeof(uint32_t),
                                sizeof(sluice_early_line), SLUICE_EARLY_PAGE_LINES, &options);
  if (fd < 0) return Failed("no memory for a page", -fd);
  void* memory = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    const int error = errno;
    close(fd);
    return Failed("a page cannot be mapped", error);
  }
  auto* lines = static_cast<sluice_early_line*>(memory);
  pages_[number] = {fd, lines};
  unpublished_.push_back(number);
  return lines;
}

absl::Status EarlyPages::Publish() {
  if (unpublished_.empty()) return absl::OkStatus();
  std::vector<int> fds;
  for (const uint32_t number : unpublished_) fds.push_back(pages_[number].fd);
  auto count = static_cast<uint32_t>(fds.size());
  const int error =
      bpf_map_update_batch(pages_fd_, unpublished_.data(), fds.data(), &count, nullptr);
  if (error != 0) return Failed("pages cannot be handed to the XDP program", -error);
  unpublished_.clear();
  return absl::OkStatus();
}

}  // namespace sluice::io::af_xdp
