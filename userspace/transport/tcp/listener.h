// A port that waits for connections: its backlog and those that nobody has accepted yet.
//
// Half-open connections (SYN-RECEIVED) are connections as any other, at most `backlog` of them, and of
// all listeners together TcpLimits::half_open; SYNs
// beyond are answered with cookies (RFC 4987), which cost nothing to remember. While `backlog`
// finished ones wait to be accepted, SYNs are dropped, so that peers try again; with those that were
// half open by then, at most twice as many can come to wait.
#ifndef SLUICE_TRANSPORT_TCP_LISTENER_H_
#define SLUICE_TRANSPORT_TCP_LISTENER_H_

#include <cstdint>

#include "base/time.h"
#include "transport/common/endpoint.h"
#include "transport/common/slab.h"
#include "transport/tcp/config.h"
#include "transport/tcp/events.h"

namespace sluice::transport {

struct TcpListener {
  Endpoint local;  // the address may be unspecified: all of ours
  TcpSocketOptions options;
  TcpHandler* handler = nullptr;
  uint32_t generation = 1;
  uint32_t backlog = 0;
  uint32_t half_open = 0;
  uint32_t waiting = 0;  // in the accept queue
  uint32_t head = kNoIndex;  // of both
  uint32_t tail = kNoIndex;
  uint32_t accept_head = kNoIndex;
  uint32_t accept_tail = kNoIndex;
  Nanos last_cookie = Nanos(INT64_MIN / 2);
  bool active = false;
  bool queued_for_events = false;

  Tuple Key() const { return {local, {}}; }
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_LISTENER_H_
