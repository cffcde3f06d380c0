#include "transport/udp/udp.h"

#include <algorithm>

#include "transport/common/datagram.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace sluice::transport {

namespace {

using packet::HeldOf;
using packet::Verdict;

// How many ports are tried at random; each costs a few look-ups.
constexpr int kPortTries = 256;
constexpr int kPortTriesFor = 64;

bool ComesBy(const IfaceSet& interfaces, IfaceSlot in) {
  return !in.valid() || interfaces.Has(in);
}

}  // namespace

Udp::Udp(const UdpConfig& config, const HashKey& key, packet::FramePool& frames, IpLayer& ip,
         PathMtuCache& path_mtus)
    : config_(config),
      frames_(frames),
      ip_(ip),
      path_mtus_(path_mtus),
      port_key_{SecretHash(key, {0x756470}), SecretHash(key, {0x706f7274})},
      sockets_(config.sockets),
      table_(config.sockets, {key.k1, key.k0}),
      frames_left_(config.receive_frames) {
  ready_.reserve(config.sockets);
  members_.reserve(config.memberships);
}

uint32_t Udp::Find(const Tuple& t) const {
  uint32_t index = FindExact(t);
  if (index == kNoIndex) index = FindExact({t.local, {}});
  if (index == kNoIndex) {
    Endpoint any = t.local;
    any.address.bits = {};
    index = FindExact({any, {}});
  }
  return index;
}

// Whether a socket that has joined the group wants a datagram to `t.local` from `t.remote`.
bool Udp::IsMember(const Membership& m, const Tuple& t, IfaceSlot in) const {
  if (m.group != t.local.address || !ComesBy(m.on, in)) return false;
  const Socket& s = sockets_[m.socket];
  const IpAddress& bound = s.tuple.local.address;
  return s.tuple.local.port == t.local.port && (IsAny(bound) || bound == m.group) &&
         (!s.connected || s.tuple.remote == t.remote);
}

bool Udp::ClaimsMulticast(const Tuple& t, IfaceSlot in) const {
  return std::any_of(members_.begin(), members_.end(),
                     [&](const Membership& m) { return IsMember(m, t, in); });
}

bool Udp::HasMembers(const IpAddress& group, IfaceSlot in) const {
  return std::any_of(members_.begin(), members_.end(), [&](const Membership& m) {
    return m.group == group && ComesBy(m.on, in);
  });
}

Udp::Membership* Udp::FindMembership(uint32_t socket, const IpAddress& group) {
  const auto found = std::find_if(members_.begin(), members_.end(), [&](const Membership& m) {
    return m.socket == socket && m.group == group;
  });
  return found == members_.end() ? nullptr : &*found;
}

SocketError Udp::Join(UdpSocket socket, const IpAddress& group, IfaceSet on) {
  Socket* const s = Resolve(socket);
  if (s == nullptr) return SocketError::kBadSocket;
  const bool same_family = s->tuple.local.address.family == group.family;
  if (!IsMulticast(group) || !same_family) return SocketError::kInvalid;
  if (Membership* const known = FindMembership(socket.index, group)) {
    known->on = on;
    return SocketError::kNone;
  }
  if (members_.size() == config_.memberships) return SocketError::kNoMemory;
  members_.push_back({group, socket.index, on});
  return SocketError::kNone;
}

SocketError Udp::Leave(UdpSocket socket, const IpAddress& group) {
  if (Resolve(socket) == nullptr) return SocketError::kBadSocket;
  const Membership* const known = FindMembership(socket.index, group);
  if (known == nullptr) return SocketError::kInvalid;
  members_.erase(members_.begin() + (known - members_.data()));
  return SocketError::kNone;
}

Verdict Udp::Receive(packet::Packet& p, Nanos now) {
  const auto view = wire::UdpView::Parse(FirstPieceOf(p));
  if (!view) return Verdict::Continue();
  const IpEnds ends = EndsOf(p);
  const Tuple tuple{{ends.destination, view->destination_port()},
                    {ends.source, view->source_port()}};
  const bool multicast = IsMulticast(ends.destination);
  const uint32_t index = multicast ? kNoIndex : Find(tuple);
  if (multicast ? !ClaimsMulticast(tuple, p.in) : index == kNoIndex) return Verdict::Continue();
  if (!view->LengthFits(L4LengthOf(p))) return Verdict::Drop(DropReason::kUdpHeader);
  packet::TrimPacket(frames_, p, uint32_t{p.l4_offset} + view->length());
  // On IPv6 a checksum must be there (RFC 8200 section 8.1).
  if (!view->has_checksum() ? !ends.source.is_v4() : !L4ChecksumOf(frames_.arena(), p, ends)) {
    return Verdict::Drop(DropReason::kChecksum);
  }
  const bool queued = multicast ? QueueForMembers(tuple, p) : Queue(index, p);
  Dispatch(now);
  return queued ? Verdict::Local() : Verdict::Drop(DropReason::kUdpQueueFull);
}

// Each member gets one: copies for all but the last. False: nobody has taken the packet itself.
bool Udp::QueueForMembers(const Tuple& tuple, const packet::Packet& p) {
  uint32_t last = kNoIndex;
  for (const Membership& m : members_) {
    if (!IsMember(m, tuple, p.in)) continue;
    packet::Packet copy;
    if (last != kNoIndex && Copy(p, copy) && !Queue(last, copy)) {
      packet::FreePacket(frames_, copy);
    }
    last = m.socket;
  }
  return Queue(last, p);
}

// Into one frame; false when none is free, or the datagram is larger.
bool Udp::Copy(const packet::Packet& p, packet::Packet& copy) {
  const uint32_t room = frames_.arena().chunk_size() - packet::kHeadroom;
  const packet::FrameIndex frame = p.length <= room ? frames_.Alloc() : packet::kNoFrame;
  if (frame == packet::kNoFrame) {
    counters_.no_frame.Add();
    return false;
  }
  copy = p;
  copy.frame = frame;
  copy.segment_count = 1;
  copy.segment_length = static_cast<uint16_t>(p.length);
  copy.data = frames_.arena().Chunk(frame) + packet::kHeadroom;
  packet::CopyOut(frames_.arena(), p, 0, copy.data, p.length);
  return true;
}

// False: a limit, and the packet is the caller's.
bool Udp::Queue(uint32_t index, const packet::Packet& p) {
  Socket& s = sockets_[index];
  if (s.queued >= config_.queue || frames_left_ < p.segment_count) {
    counters_.queue_full.Add();
    return false;
  }
  frames_left_ -= p.segment_count;
  HeldOf(frames_.arena(), p.frame) = {p, packet::kNoFrame};
  if (s.tail == packet::kNoFrame) {
    s.head = p.frame;
  } else {
    HeldOf(frames_.arena(), s.tail).next = p.frame;
  }
  s.tail = p.frame;
  ++s.queued;
  counters_.datagrams_received.Add();
  s.readable = true;
  Raise(index);
  return true;
}

bool Udp::OnIcmpError(const Tuple& tuple, bool hard, Nanos now) {
  const uint32_t index = FindExact(tuple);
  if (index == kNoIndex) return Find(tuple) != kNoIndex;  // an unconnected one is not told
  if (!hard) return true;
  counters_.errors.Add();
  sockets_[index].error = SocketError::kUnreachable;
  Raise(index);
  Dispatch(now);
  return true;
}

bool Udp::OnTooBig(const Tuple& tuple, uint32_t mtu, Nanos now) {
  const uint32_t index = Find(tuple);
  if (index == kNoIndex) return false;
  IpLayer::Path path;
  if (!ip_.FindPath(tuple.remote.address, path) || mtu >= path.mtu) return true;
  path_mtus_.LearnUnproven(tuple.remote.address, mtu, now);
  const Socket& s = sockets_[index];
  if (s.handler != nullptr) {
    s.handler->OnPathNarrower({index, s.generation}, tuple.remote, now);
  }
  return true;
}

void Udp::Raise(uint32_t index) {
  if (sockets_[index].queued_for_events) return;
  sockets_[index].queued_for_events = true;
  ready_.push_back(index);
}

void Udp::Dispatch(Nanos now) {
  while (!ready_.empty()) {
    const uint32_t index = ready_.back();
    ready_.pop_back();
    Socket& s = sockets_[index];
    s.queued_for_events = false;
    const UdpSocket id{index, s.generation};
    const bool readable = s.readable;
    s.readable = false;
    if (!s.open || s.handler == nullptr) continue;
    if (s.error != SocketError::kNone) s.handler->OnError(id, s.error, now);
    if (readable && s.open && s.generation == id.generation) s.handler->OnReadable(id, now);
  }
}

Udp::Socket* Udp::Resolve(UdpSocket socket) {
  if (socket.index >= sockets_.capacity()) return nullptr;
  Socket& s = sockets_[socket.index];
  return s.open && s.generation == socket.generation ? &s : nullptr;
}

const Endpoint* Udp::LocalOf(UdpSocket socket) const {
  const Socket* const s = const_cast<Udp*>(this)->Resolve(socket);
  return s == nullptr ? nullptr : &s->tuple.local;
}

// Those that are seen must not tell those that follow: answers to DNS are known by their ports (RFC
// 5452 section 9.2).
uint16_t Udp::RandomPort() {
  const uint64_t count = uint64_t{config_.last_port} - config_.first_port + 1;
  return static_cast<uint16_t>(config_.first_port +
                               SecretHash(port_key_, {++ports_chosen_}) % count);
}

std::optional<uint16_t> Udp::ChoosePort(Endpoint local) {
  for (int i = 0; i < kPortTries; ++i) {
    local.port = RandomPort();
    if (FindExact({local, {}}) == kNoIndex) return local.port;
  }
  return {};
}

SocketError Udp::Bind(const Endpoint& local, UdpHandler* handler, UdpSocket& socket) {
  Tuple tuple{local, {}};
  if (local.port == 0) {
    const auto port = ChoosePort(local);
    if (!port) return SocketError::kNoPorts;
    tuple.local.port = *port;
  }
  return Add(tuple, handler, socket);
}

SocketError Udp::Add(const Tuple& tuple, UdpHandler* handler, UdpSocket& socket) {
  if (FindExact(tuple) != kNoIndex) return SocketError::kAddressInUse;
  const uint32_t index = sockets_.Alloc();
  if (index == kNoIndex) return SocketError::kNoMemory;
  Socket& s = sockets_[index];
  s.tuple = tuple;
  s.handler = handler;
  s.error = SocketError::kNone;
  s.open = true;
  s.connected = s.readable = false;
  table_.Insert(tuple, index);
  socket = {index, s.generation};
  return SocketError::kNone;
}

std::optional<uint16_t> Udp::ChoosePortFor(Tuple t) {
  for (int i = 0; i < kPortTriesFor; ++i) {
    t.local.port = RandomPort();
    // A socket that takes everybody's datagrams should not lose those of this peer.
    if (Find(t) == kNoIndex && ip_.ArrivesHere(t)) return t.local.port;
  }
  return {};
}

SocketError Udp::Open(const Endpoint& local, const Endpoint& remote, UdpHandler* handler,
                      UdpSocket& socket) {
  if (remote.port == 0 || IsAny(remote.address)) return SocketError::kInvalid;
  Tuple tuple{local, remote};
  if (IsAny(local.address)) {
    IpLayer::Path path;
    if (!ip_.FindPath(remote.address, path)) return SocketError::kUnreachable;
    tuple.local.address = path.source;
  }
  if (tuple.local.address.family != remote.address.family) return SocketError::kInvalid;
  if (local.port == 0) {
    const auto port = ChoosePortFor(tuple);
    if (!port) return SocketError::kNoPorts;
    tuple.local.port = *port;
  }
  const SocketError error = Add(tuple, handler, socket);
  if (error == SocketError::kNone) sockets_[socket.index].connected = true;
  return error;
}

SocketError Udp::Connect(UdpSocket socket, const Endpoint& remote) {
  Socket* const s = Resolve(socket);
  if (s == nullptr) return SocketError::kBadSocket;
  if (s->connected || remote.port == 0 || IsAny(remote.address)) return SocketError::kInvalid;
  Tuple tuple{s->tuple.local, remote};
  tuple.local.address.family = remote.address.family;
  if (IsAny(tuple.local.address)) {
    IpLayer::Path path;
    if (!ip_.FindPath(remote.address, path)) return SocketError::kUnreachable;
    tuple.local.address = path.source;
  }
  if (FindExact(tuple) != kNoIndex) return SocketError::kAddressInUse;
  table_.Erase(s->tuple, socket.index);
  s->tuple = tuple;
  s->connected = true;
  table_.Insert(tuple, socket.index);
  return SocketError::kNone;
}

SocketError Udp::Close(UdpSocket socket) {
  Socket* const s = Resolve(socket);
  if (s == nullptr) return SocketError::kBadSocket;
  ReceivedData data;
  Endpoint from;
  while (Pop(*s, data, from)) Release(data);
  table_.Erase(s->tuple, socket.index);
  std::erase_if(members_, [&](const Membership& m) { return m.socket == socket.index; });
  s->open = false;
  s->handler = nullptr;
  ++s->generation;
  sockets_.Free(socket.index);
  return SocketError::kNone;
}

bool Udp::Pop(Socket& s, ReceivedData& out, Endpoint& from) {
  if (s.head == packet::kNoFrame) return false;
  const packet::HeldPacket held = HeldOf(frames_.arena(), s.head);
  s.head = held.next;
  if (s.head == packet::kNoFrame) s.tail = packet::kNoFrame;
  --s.queued;
  frames_left_ += held.packet.segment_count;
  const uint32_t offset = uint32_t{held.packet.l4_offset} + wire::UdpView::kSize;
  out = {held.packet, offset, held.packet.length - offset};
  from = {EndsOf(held.packet).source, wire::L4PortsView(held.packet.l4()).source_port()};
  return true;
}

IoResult Udp::Receive(UdpSocket socket, std::span<uint8_t> out, Endpoint& from) {
  ReceivedData data;
  const SocketError error = ReceivePacket(socket, data, from);
  if (error != SocketError::kNone) return {error};
  const auto n = static_cast<uint32_t>(std::min<size_t>(out.size(), data.length));
  packet::CopyOut(frames_.arena(), data.packet, data.offset, out.data(), n);
  Release(data);
  return {SocketError::kNone, n};
}

SocketError Udp::ReceivePacket(UdpSocket socket, ReceivedData& out, Endpoint& from) {
  Socket* const s = Resolve(socket);
  if (s == nullptr) return SocketError::kBadSocket;
  if (Pop(*s, out, from)) return SocketError::kNone;
  if (s->error != SocketError::kNone) {
    const SocketError error = s->error;
    s->error = SocketError::kNone;
    return error;
  }
  return SocketError::kWouldBlock;
}

}  // namespace sluice::transport
