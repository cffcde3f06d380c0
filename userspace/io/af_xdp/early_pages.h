// The pages of lines that a loaded XDP program reads (bpf/include/early_abi.h): made on demand,
// mapped into this process, put into the map of pages.
//
// A page stays in its place once made, and is lent again, zeroed, to the next table at that place;
// whoever lends it twice sees to it that no program reads it any more (Quiesce).
//
// Thread: control.
#ifndef SLUICE_IO_AF_XDP_EARLY_PAGES_H_
#define SLUICE_IO_AF_XDP_EARLY_PAGES_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpf/include/early_abi.h"

namespace sluice::io::af_xdp {

class EarlyPages {
 public:
  explicit EarlyPages(int pages_fd) : pages_fd_(pages_fd) {}
  ~EarlyPages();
  EarlyPages(const EarlyPages&) = delete;
  EarlyPages& operator=(const EarlyPages&) = delete;

  // Page `number`, zeroed. The program sees a new one after Publish.
  absl::StatusOr<sluice_early_line*> Lend(uint32_t number);
  // One system call, which waits for programs that run now, if there is anything to do.
  absl::Status Publish();

  size_t bytes() const { return pages_.size() * size_t{SLUICE_EARLY_PAGE_LINES} * 64; }

 private:
  struct Page {
    int fd = -1;
    sluice_early_line* lines = nullptr;
  };

  const int pages_fd_;
  std::map<uint32_t, Page> pages_;
  std::vector<uint32_t> unpublished_;
};

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_EARLY_PAGES_H_
