// Elements that packets have added to sets, or removed, written into the kernel's sets: `nft list set`
// shows them, and the kernel has them when Sluice ends.
//
// A transaction each time, which the kernel takes only if its ruleset is still the one that is meant
// (NFNL_BATCH_GENID); an element that it refuses (a full set, a set that has gone) does not keep
// the others out. What is written comes back to the mirror like everybody's changes.
//
// Thread: control, in the namespace of Open. Nothing is waited for: the kernel has done it when
// sendto() returns. Cost: linear in the elements.
#ifndef SLUICE_CONTROL_NFT_SET_WRITER_H_
#define SLUICE_CONTROL_NFT_SET_WRITER_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/nft/model.h"

namespace sluice::control::nft {

struct ElementChange {
  TableFamily family = TableFamily::kInet;
  std::string table;
  std::string set;
  bool removed = false;
  Bytes key;
  Bytes data;               // of maps
  uint64_t timeout_ms = 0;  // 0: none
  std::vector<Expr> exprs;  // counter, limit, quota, ct count, last
};

class SetWriter {
 public:
  static absl::StatusOr<SetWriter> Open();
  SetWriter(SetWriter&& other) noexcept;
  SetWriter& operator=(SetWriter&& other) noexcept;
  ~SetWriter();

  struct Result {
    size_t written = 0;
    size_t refused = 0;
    bool stale = false;  // the ruleset is another one by now: nothing was written
  };
  // `generation`: of the ruleset that has these sets.
  absl::StatusOr<Result> Write(std::span<const ElementChange> changes, uint32_t generation);

 private:
  explicit SetWriter(int fd) : fd_(fd) {}
  // The indexes that the kernel refuses.
  absl::StatusOr<std::vector<size_t>> Try(std::span<const ElementChange* const> changes,
                                          uint32_t generation, bool& stale);

  int fd_ = -1;
};

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_SET_WRITER_H_
