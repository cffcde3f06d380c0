// Tells the kernel of neighbours that Sluice has found: so that `ip neigh` shows them, `ip neigh flush`
// reaches them, and the kernel can forward at once when Sluice ends, however it ends. (An answer to
// Sluice's own question is shown to the kernel too, but makes no entry where it had none.)
//
// They are written as stale (NUD_STALE): the kernel asks before it relies on one for long.
//
// Thread: control, in the interfaces' network namespace. Cost: a system call of a few microseconds for
// each. Needs CAP_NET_ADMIN.
#ifndef SLUICE_CONTROL_NEIGHBOR_WRITER_H_
#define SLUICE_CONTROL_NEIGHBOR_WRITER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/ids.h"

struct nl_sock;

namespace sluice::control {

class NeighborWriter {
 public:
  static absl::StatusOr<std::unique_ptr<NeighborWriter>> Open();
  ~NeighborWriter();
  NeighborWriter(const NeighborWriter&) = delete;
  NeighborWriter& operator=(const NeighborWriter&) = delete;

  // An entry that the kernel has already stays as it is, which is no error.
  absl::Status Add(IfIndex interface, const IpAddress& address, const Mac& mac);

 private:
  explicit NeighborWriter(nl_sock* socket) : socket_(socket) {}

  nl_sock* const socket_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NEIGHBOR_WRITER_H_
