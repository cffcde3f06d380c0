// Relays of sockets as entries of the flow tier.
#include <cstring>

#include "dataplane/offload.h"
#include "dataplane/offload_order.h"
#include "wire/tcp_sequence.h"

namespace sluice::dataplane {

using tables::FlowTuple;
using tables::OffloadChange;

namespace {

// Of packets from `from` to `to`.
FlowTuple TupleOf(const transport::Endpoint& from, const transport::Endpoint& to,
                  uint8_t protocol) {
  FlowTuple t;
  t.family = from.address.family;
  t.protocol = protocol;
  t.source = from.address.bits;
  t.destination = to.address.bits;
  t.source_port = from.port;
  t.destination_port = to.port;
  return t;
}

OffloadChange KeyOf(const FlowTuple& arrives, IfaceSlot in) {
  OffloadChange key;
  key.family = arrives.family;
  FillKey(key, arrives, in);
  return key;
}

bool SameKey(const OffloadChange& a, const OffloadChange& b) {
  if (a.family != b.family) return false;
  return a.family == Family::kIpv4 ? std::memcmp(&a.key4, &b.key4, sizeof a.key4) == 0
                                   : std::memcmp(&a.key6, &b.key6, sizeof a.key6) == 0;
}

uint32_t Later(uint32_t a, uint32_t b) {
  return wire::Later(wire::TcpSeq(a), wire::TcpSeq(b)).value();
}

}  // namespace

bool Offload::WantsRelay(const transport::Relayed& relayed) {
  if (!enabled()) return false;
  transport::RelayHandle& handle = *relayed.handle;
  if (handle.packets < threshold_) {
    ++handle.packets;
    return false;
  }
  if (!MayPromote()) return false;
  if (handle.entry == 0) return true;
  const Entry& e = entries_[handle.entry - 1];
  if (e.moved) return false;
  if (!IsValid(e)) return true;
  return e.in != relayed.in && now_ > e.used + kScanInterval * 2;  // as WantsFlow
}

void Offload::PromoteRelay(const transport::Relayed& relayed, const OffloadWay& way,
                           const TcpNumbers& begin) {
  const bool spliced = relayed.splice != nullptr;
  if (spliced && memory_.splices == nullptr) return;
  const FlowTuple arrives =
      TupleOf(relayed.arrives.remote, relayed.arrives.local, relayed.protocol);
  const OffloadChange key = KeyOf(arrives, way.in);
  uint32_t reuse = kNoEntry;
  if (relayed.handle->entry != 0) {
    reuse = relayed.handle->entry - 1;
    if (!IsOf(entries_[reuse], key, relayed.splice)) return Leave(entries_[reuse]);
  }
  Entry* const e = Prepare(reuse, way, arrives.family);
  if (e == nullptr) return;
  FillKey(e->order, arrives, way.in);
  FillRewrite(e->order, arrives,
              TupleOf(relayed.leaves.remote, relayed.leaves.local, relayed.protocol));
  e->order.action().flags |= SLUICE_OFFLOAD_REWRITE | SLUICE_OFFLOAD_RELAY;
  if (spliced) {
    e->order.action().flags |= SLUICE_OFFLOAD_SPLICE;
    if (reuse == kNoEntry) {
      memory_.splices[first_id_ + IdOf(*e)] = *relayed.splice;
      e->latest = begin;
      Cell(0, *e).last_end = begin.end;  // nobody else is at an id at rest
      Cell(0, *e).last_ack = begin.ack;
    } else {
      MoveNumbers(*e, begin);
    }
  }
  e->flow = tables::kNoFlow;
  e->heat = kNoEntry;
  e->rule_count = 0;
  if (!Order(*e)) return;
  if (reuse == kNoEntry) e->untold_packets = e->untold_bytes = 0;
  e->relay = relayed.handle;
  e->user = relayed.user;
  e->token = relayed.token;
  relayed.handle->entry = IdOf(*e) + 1;
}

void Offload::TellRelay(const transport::RelayHandle& handle, Nanos now) {
  if (handle.entry == 0) return;
  now_ = now;
  Entry& e = entries_[handle.entry - 1];
  Harvest(e);
  Tell(e);
}

void Offload::EndRelay(transport::RelayHandle& handle, Nanos now) {
  if (handle.entry == 0) {
    handle.packets = 0;
    return;
  }
  now_ = now;
  Kill(entries_[handle.entry - 1], End::kEnded);
}

// Whether the entry may be made anew under its id: nothing may stay behind under another key, and XDP
// may be at a packet by the splice that there is.
bool Offload::IsOf(const Entry& e, const OffloadChange& key, const sluice_splice* splice) const {
  if (!SameKey(e.order, key)) return false;
  const bool spliced = (e.order.action().flags & SLUICE_OFFLOAD_SPLICE) != 0;
  if (spliced != (splice != nullptr)) return false;
  return !spliced ||
         std::memcmp(&memory_.splices[e.order.action().id], splice, sizeof *splice) == 0;
}

// XDP carries nothing by it from now on; the next scan ends it, since its user can be told then.
void Offload::Leave(Entry& e) {
  for (uint32_t cpu = 0; cpu < memory_.cpus; ++cpu) {
    __atomic_store_n(&Cell(cpu, e).epoch, 0u, __ATOMIC_RELEASE);
  }
  e.moved = true;
}

void Offload::Tell(Entry& e) {
  if (e.untold_packets == 0) return;
  const uint64_t packets = e.untold_packets;
  const uint64_t bytes = e.untold_bytes;
  e.untold_packets = e.untold_bytes = 0;
  e.user->OnCarried(
      e.token,
      {.packets = packets, .bytes = bytes, .end = e.latest.end, .ack = e.latest.ack}, now_);
}

void Offload::NoteSegment(const transport::RelayHandle& handle, const TcpNumbers& numbers) {
  if (handle.entry != 0) MoveNumbers(entries_[handle.entry - 1], numbers);
}

// XDP believes what is near to what it has: it must have what comes by the worker, too.
void Offload::MoveNumbers(Entry& e, const TcpNumbers& numbers) {
  e.latest = {Later(e.latest.end, numbers.end), Later(e.latest.ack, numbers.ack)};
  SeeNumbers(e);
  sluice_offload_cell& cell = Cell(0, e);
  __atomic_store_n(&cell.last_end, e.latest.end, __ATOMIC_RELAXED);
  __atomic_store_n(&cell.last_ack, e.latest.ack, __ATOMIC_RELAXED);
}

void Offload::SeeNumbers(Entry& e) {
  if ((e.order.action().flags & SLUICE_OFFLOAD_SPLICE) == 0) return;
  const sluice_offload_cell& cell = Cell(0, e);
  e.latest = {Later(e.latest.end, __atomic_load_n(&cell.last_end, __ATOMIC_RELAXED)),
              Later(e.latest.ack, __atomic_load_n(&cell.last_ack, __ATOMIC_RELAXED))};
}

}  // namespace sluice::dataplane
