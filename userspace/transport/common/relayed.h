// Relays that the layer below may carry out by itself: packets that leave as they have come but for
// addresses, ports, and what sluice_splice says of TCP's header (bpf/include/offload_abi.h).
#ifndef SLUICE_TRANSPORT_COMMON_RELAYED_H_
#define SLUICE_TRANSPORT_COMMON_RELAYED_H_

#include <cstdint>

#include "base/ids.h"
#include "base/time.h"
#include "bpf/include/offload_abi.h"
#include "transport/common/endpoint.h"

namespace sluice::transport {

// What has been carried of one direction since the last time it was told.
struct Carried {
  uint64_t packets = 0;
  uint64_t bytes = 0;  // with their IP headers
  // Of TCP, as it came: the end of the data that came last or farthest, and the acknowledgment. They may go
  // back; a user judges them, since a stranger's segment may have told them, by `bytes` and the like.
  uint32_t end = 0;
  uint32_t ack = 0;
};

// Whoever relays. Called from the layer's own timer, and within TellRelayed and EndRelayed; no call of
// the stack's that sends, opens or ends anything is allowed in it.
class RelayUser {
 public:
  virtual ~RelayUser() = default;
  virtual void OnCarried(uint64_t token, const Carried& carried, Nanos now) = 0;
};

// Names what the layer below has of one direction; its user's, who keeps it where it is until
// EndRelayed. Zero at the beginning.
struct RelayHandle {
  uint32_t entry = 0;    // the layer's; 0: it carries nothing
  uint32_t packets = 0;  // that were offered
};

struct Relayed {
  IfaceSlot in;      // where the packet came in
  Tuple arrives;     // local: the address of ours it came to; remote: its sender
  Tuple leaves;      // local: ours; remote: where it goes
  uint8_t protocol;  // TCP or UDP
  const sluice_splice* splice = nullptr;  // of TCP
  RelayHandle* handle = nullptr;  // null: others like it are not to be carried
  RelayUser* user = nullptr;
  uint64_t token = 0;  // for OnCarried
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_RELAYED_H_
