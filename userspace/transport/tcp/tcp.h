// TCP of one worker (RFC 9293): its connections and listeners, and what happens to them.
//
// No I/O, no clock, no threads, no locks: segments come by Receive, leave by IpLayer::Output, time is
// passed in and must not go back. All memory is had at construction (config.h has the limits).
//
// The state machine is in several files, one per concern:
//   tcp_input.cc      a segment arrives: section 3.10.7 of RFC 9293, RFC 5961, PAWS
//   tcp_handshake.cc  SYNs: listeners, cookies, options agreed on, SYN-SENT
//   tcp_data.cc       received data: queueing, acknowledging, the window that is offered
//   tcp_ack.cc        what an ACK says about our segments; round trips; the peer's window
//   tcp_recovery.cc   losses: RACK-TLP, fast recovery, timeouts, undo
//   tcp_output.cc     what to send and when: Nagle, windows, probes; segments built
//   tcp_timers.cc     timers
//   tcp_path_mtu.cc   the path's MTU: black holes, and the search for it
//   tcp_icmp.cc       errors by ICMP
//   tcp_splice.cc     two connections that are passed on into each other
//   tcp_life.cc       how connections come, end, and wait; events
//   tcp_sockets.cc    the program's calls
//
// Thread: the worker's, for all of it; counters() may be read by anyone.
#ifndef SLUICE_TRANSPORT_TCP_TCP_H_
#define SLUICE_TRANSPORT_TCP_TCP_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/reason.h"
#include "base/rng.h"
#include "base/time.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "tables/timer_wheel.h"
#include "transport/common/index_ring.h"
#include "transport/common/ip_layer.h"
#include "transport/common/path_mtu_cache.h"
#include "transport/common/slab.h"
#include "transport/common/tuple_table.h"
#include "transport/tcp/config.h"
#include "transport/tcp/counters.h"
#include "transport/tcp/events.h"
#include "transport/tcp/listener.h"
#include "transport/tcp/secrets.h"
#include "transport/tcp/segment.h"
#include "transport/tcp/splice.h"
#include "transport/tcp/tcb.h"

namespace sluice::transport {

// What an ICMP error says about a segment of ours that it quotes.
struct TcpIcmpError {
  enum class Kind : uint8_t { kTooBig, kHard, kSoft };
  Tuple tuple;
  wire::TcpSeq sequence;
  Kind kind = Kind::kSoft;
  uint32_t mtu = 0;  // of kTooBig; 0: not told
};

// What is in use; after all connections are gone everything is zero but listeners.
struct TcpUsage {
  uint32_t connections = 0;
  uint32_t time_wait = 0;
  uint32_t half_open = 0;
  uint32_t orphans = 0;
  uint32_t listeners = 0;
  uint32_t segments = 0;
  uint32_t send_pieces = 0;
  uint32_t send_frames = 0;
  uint32_t receive_frames = 0;
  uint32_t ranges = 0;
  uint32_t timers = 0;
  uint32_t splices = 0;
};

class Tcp final : private RelayUser {
 public:
  Tcp(const TcpConfig& config, const HashKey& key, packet::FramePool& frames, IpLayer& ip,
      PathMtuCache& path_mtus, Nanos start);
  Tcp(const Tcp&) = delete;
  Tcp& operator=(const Tcp&) = delete;

  // --- The layer below ---

  // A whole TCP segment for an address of ours (common/datagram.h). kContinue: no socket has this
  // port, and the packet is as it was; kDrop: counted and freed by the caller; kLocal: taken.
  packet::Verdict Receive(packet::Packet& p, Nanos now);
  // Around the Receives of packets that have arrived together, if the caller likes: acknowledging, call
  // backs and sending are then done once per connection instead of once per segment, as for a host
  // whose NIC or kernel collects segments (GRO). Only where a connection is in order and at ease; all
  // else is answered as ever.
  void BeginBurst() {
    in_burst_ = true;
    BeginTurn();
  }
  void EndBurst(Nanos now);
  // Whether Receive would take a segment from `remote` to `local`.
  bool Claims(const Tuple& t) const {
    return FindConnection(t) != kNoIndex || FindListener(t.local) != kNoIndex;
  }
  // False: it concerns none of our connections.
  bool OnIcmpError(const TcpIcmpError& error, Nanos now);
  // The layer below has refused a segment and reset its sender: the connection ends, kReset, if the
  // segment lies in its window (others are not believed to be the peer's).
  void OnSevered(const Tuple& tuple, wire::TcpSeq sequence, Nanos now);
  // Also sends what the burst had to leave, by portions.
  void OnTimer(Nanos now);
  // When OnTimer wants to be called at the latest.
  Nanos NextDeadline() const {
    return !ready_.empty() || !unfinished_.empty()
               ? Nanos() : std::min(timers_.NextDeadline(), memory_retry_);
  }

  // --- Programs (tcp_sockets.cc; the rules are in transport/transport.h) ---

  SocketError Listen(const Endpoint& local, const TcpSocketOptions& options, uint32_t backlog,
                     TcpHandler* handler, TcpListenerId& id);
  SocketError CloseListener(TcpListenerId id, Nanos now);
  SocketError Accept(TcpListenerId id, TcpHandler* handler, TcpSocket& socket);
  // Whether Accept would give a connection.
  bool Acceptable(TcpListenerId id) const;
  SocketError Connect(const Endpoint& local, const Endpoint& remote,
                      const TcpSocketOptions& options, TcpHandler* handler, Nanos now,
                      TcpSocket& socket);
  IoResult Send(TcpSocket socket, std::span<const uint8_t> data, Nanos now);
  // As Send, with more to follow: what does not fill a segment waits for it, but not for longer than an
  // RTO (Linux' MSG_MORE).
  IoResult SendMore(TcpSocket socket, std::span<const uint8_t> data, Nanos now);
  // What has been written so far ends a record: no segment has data of both sides, nor has any that is sent
  // again (Linux' MSG_EOR). Costs the rest of the frame in which that data ends, if it is in one. Nothing
  // to do where all has been sent.
  SocketError EndRecord(TcpSocket socket);
  IoResult SendOwned(TcpSocket socket, const OwnedBuffer& buffer, Nanos now);
  IoResult SendReceived(TcpSocket socket, const ReceivedData& data, Nanos now);
  // As SendReceived, with more to follow in this call back: nothing goes until Push or Shutdown.
  IoResult QueueReceived(TcpSocket socket, const ReceivedData& data, Nanos now);
  SocketError Push(TcpSocket socket, Nanos now);
  IoResult Receive(TcpSocket socket, std::span<uint8_t> out, Nanos now);
  SocketError ReceivePacket(TcpSocket socket, ReceivedData& out, Nanos now);
  void Release(const ReceivedData& data) { packet::FreePacket(frames_, data.packet); }
  // How much may be sent; after 0 OnWritable comes. While less than a quarter of the memory for sending
  // is left, connections may keep little of it, then less and less, down to one packet.
  uint32_t SendRoom(TcpSocket socket);
  SocketError Shutdown(TcpSocket socket, Nanos now);
  SocketError Close(TcpSocket socket, Nanos now);
  SocketError Abort(TcpSocket socket, Nanos now);
  // The program does nothing with these but to send on each what comes on the other, and with the end
  // of one's data ends the other's. So when both are at rest the stack may splice them: segments pass
  // without ending here, and without the program, which is told by OnRelayed and OnSpliceEnded only.
  // Until then, and if it never comes to it, everything is as without Join. Established connections of
  // one family; for others nothing happens. Once per connection. Abort ends both; Send and Shutdown
  // say kInvalid once they are spliced.
  SocketError Join(TcpSocket a, TcpSocket b);
  // What the layer below has carried of the two is told (OnRelayed) before this returns; by itself it tells
  // a little later.
  void TellCarried(TcpSocket socket, Nanos now);
  SocketError SetHandler(TcpSocket socket, TcpHandler* handler);
  SocketError SetOptions(TcpSocket socket, const TcpSocketOptions& options, Nanos now);
  // Of the connections that begin from now on.
  SocketError SetListenerOptions(TcpListenerId id, const TcpSocketOptions& options);

  // For views: `visit(const Tcb&)` for each connection, and for what is left of one until its program
  // closes it. A look at every place there is, so not for the packet path.
  template <class Visitor>
  void ForEachConnection(Visitor&& visit) const {
    VisitConnections(0, connection_places(), visit);
  }
  // The same in portions: places `from` to `to`.
  uint32_t connection_places() const { return tcbs_.capacity(); }
  template <class Visitor>
  void VisitConnections(uint32_t from, uint32_t to, Visitor&& visit) const {
    for (uint32_t i = from; i < std::min(to, tcbs_.capacity()); ++i) {
      if (tcbs_[i].state != TcpState::kClosed || tcbs_[i].owned) visit(tcbs_[i]);
    }
  }
  template <class Visitor>
  void ForEachListener(Visitor&& visit) const {
    for (uint32_t i = 0; i < listeners_.capacity(); ++i) {
      if (listeners_[i].active) visit(listeners_[i]);
    }
  }
  // For views and tests; null when there is no such socket.
  const Tcb* Find(TcpSocket socket) const;
  TcpUsage usage() const;
  // So many more frames can be kept for sending, by all connections together; below what a packet
  // has, SendReceived refuses it.
  uint32_t SendMemory() const {
    return std::min(send_pool_.frames_left, send_pool_.pieces.capacity() - send_pool_.pieces.used());
  }
  const TcpCounters& counters() const { return counters_; }
  const TcpConfig& config() const { return config_; }

 private:
  using TcpSeq = wire::TcpSeq;
  using Disposition = std::optional<DropReason>;  // nothing: the segment was in order

  // What one ACK has told.
  struct AckNews {
    uint32_t acked = 0;      // SND.UNA moved by so much
    uint32_t delivered = 0;  // known to have arrived by this ACK (RFC 6937's DeliveredData)
    Nanos rtt;               // of the oldest segment acknowledged; zero: no sample
    Nanos rtt_last;          // of the newest
    uint32_t prior_pipe = 0;
    uint32_t prior_flight = 0;
    bool dsack = false;
    bool sacked_new = false;
    bool duplicate = false;  // RFC 5681's definition
  };

  // tcp_input.cc
  bool TakeApart(packet::Packet& p, Segment& s) const;
  Disposition OnSegment(Tcb& t, Segment& s, Nanos now);
  Disposition OnSynchronized(Tcb& t, Segment& s, Nanos now);
  bool PawsRejects(const Tcb& t, const Segment& s, Nanos now) const;
  bool Acceptable(const Tcb& t, const Segment& s) const;
  Disposition OnUnacceptable(Tcb& t, Segment& s, Nanos now);
  Disposition OnReset(Tcb& t, const Segment& s, Nanos now);
  void OnFinAcked(Tcb& t, Nanos now);
  void TakeFin(Tcb& t, Nanos now);
  Disposition OnTimeWait(Tcb& t, Segment& s, Nanos now);
  void ChallengeAck(Tcb& t, Nanos now);
  void InvalidAck(Tcb& t, Nanos now);
  bool MayWait(const Tcb& t, const Segment& s) const;

  // tcp_handshake.cc
  uint32_t FindListener(const Endpoint& local) const;
  Disposition OnListenerSegment(uint32_t listener, Segment& s, Nanos now, Tcb*& made);
  Disposition OnSyn(uint32_t listener, const Segment& s, std::optional<TcpSeq> iss, Nanos now);
  Disposition OnCookieAck(uint32_t listener, Segment& s, Nanos now, Tcb*& made);
  Disposition OnSynSent(Tcb& t, Segment& s, Nanos now);
  void SendCookie(TcpListener& listener, const Segment& s, Nanos now);
  void AgreeOnOptions(Tcb& t, const wire::TcpOptions& options);
  void Establish(Tcb& t, bool repeated, Nanos now);
  bool SendSyn(Tcb& t, Nanos now);
  wire::TcpOptions SynOptions(const Tcb& t, Nanos now) const;
  EcnMode EcnOf(const TcpSocketOptions& options) const {
    return options.ecn.value_or(config_.ecn);
  }
  // What a SYN or its answer offers, which must not depend on whether there is a connection yet.
  uint32_t ReceiveBufferMax(const TcpSocketOptions& options) const {
    return options.receive_buffer_max != 0 ? options.receive_buffer_max
                                           : config_.receive_buffer_max;
  }
  uint8_t WindowShift(const TcpSocketOptions& options) const;
  uint16_t AdvertisedMss(const TcpSocketOptions& options, uint32_t mtu, bool v4) const;
  uint32_t FirstWindow(const TcpSocketOptions& options) const;

  // tcp_data.cc
  Disposition TakeData(Tcb& t, Segment& s, Nanos now);
  void DecideAck(Tcb& t, const Segment& s, const ReceiveQueue::Result& result, Nanos now);
  void DelayAck(Tcb& t, Nanos until);
  void AfterRead(Tcb& t, uint32_t bytes, Nanos now);
  void MeasureRoundTrip(Tcb& t, const Segment& s, Nanos now);
  uint32_t FreeReceiveSpace(const Tcb& t) const;
  uint16_t SelectWindow(Tcb& t, bool syn);

  // tcp_ack.cc
  Disposition OnAck(Tcb& t, const Segment& s, Nanos now);
  void TakeCumulativeAck(Tcb& t, const Segment& s, AckNews& news, Nanos now);
  void TakeSack(Tcb& t, const Segment& s, AckNews& news, Nanos now);
  wire::TcpSackBlock TakeSackBlock(Tcb& t, wire::TcpSackBlock block, const Segment& s,
                                   AckNews& news, uint32_t& budget, Nanos now);
  static bool HasDsack(const Segment& s);
  void Delivered(Tcb& t, const TxSegment& x, const Segment& s, AckNews& news, Nanos now);
  bool UpdateSendWindow(Tcb& t, const Segment& s);
  void TellWritable(Tcb& t);
  bool IsShortOfMemory(const Tcb& t) const;
  bool MaySayALittle(const Tcb& t) const;
  IoResult AfterWhole(Tcb& t, bool room, bool taken, uint32_t length, Nanos now);
  IoResult TakeReceived(TcpSocket socket, const ReceivedData& data, bool more, Nanos now);
  void WaitForRoom(Tcb& t);
  void RetryMemory(Nanos now);

  // tcp_recovery.cc
  void AfterAck(Tcb& t, const Segment& s, const AckNews& news, Nanos now);
  bool DetectLosses(Tcb& t, Nanos now);
  bool DetectLossesByRack(Tcb& t, Nanos now);
  void EnterRecovery(Tcb& t, Nanos now);
  void EndRecovery(Tcb& t);
  void Reduce(Tcb& t, Recovery why, Nanos now);
  bool TryUndo(Tcb& t, const Segment& s, const AckNews& news);
  void OnEcnEcho(Tcb& t, Nanos now);
  void OnTailLossAck(Tcb& t, const Segment& s, const AckNews& news, Nanos now);
  void OnRto(Tcb& t, Nanos now);
  void SendTailLossProbe(Tcb& t, Nanos now);
  uint32_t Pipe(const Tcb& t) const;

  // tcp_output.cc
  void Output(Tcb& t, Nanos now, bool force = false);
  Sending WhatSendingWaitsFor(const Tcb& t) const;
  void BeginTurn();
  void ContinueOutput(Nanos now);
  bool Retransmissions(Tcb& t, uint32_t& most, Nanos now);
  // What of the new data would be the next segment, behind one that is already decided on.
  struct Plan {
    uint32_t length = 0;
    bool fin = false;
    bool small = false;
    bool probe = false;  // of the path's MTU
    bool cwnd_in_the_way = false;
    bool empty() const { return length == 0 && !fin; }
  };
  Plan PlanSegment(const Tcb& t, uint32_t limit, bool force, Plan before) const;
  bool SendNew(Tcb& t, const Plan& plan, bool push, Nanos now);
  uint32_t SegmentLimit() const;
  uint64_t PacingRate(const Tcb& t) const;
  uint32_t BurstSize(const Tcb& t) const;
  bool PacingHolds(Tcb& t, Nanos now);
  void PaceBurst(Tcb& t, uint32_t bytes, Nanos now);
  void NoteUsage(Tcb& t, bool cwnd_limited);
  bool Retransmit(Tcb& t, uint32_t index, Nanos now);
  bool Transmit(Tcb& t, TcpSeq seq, uint32_t payload, uint8_t flags, bool ect, Nanos now);
  void SendAck(Tcb& t, Nanos now) { Transmit(t, t.snd_nxt, 0, wire::kTcpAck, false, now); }
  void Flush(Tcb& t, Nanos now);
  void SendProbe(Tcb& t, Nanos now);
  void SendReset(const Tuple& tuple, TcpSeq seq, std::optional<TcpSeq> ack,
                 const wire::TcpOptions& options, Nanos now);
  void ResetFor(const Segment& s, Nanos now);
  void ResetPeer(Tcb& t, Nanos now);
  uint32_t TsNow(const Tcb& t, Nanos now) const {
    return static_cast<uint32_t>(now / Millis(1)) + t.ts_offset;
  }

  // tcp_timers.cc
  void SetTimer(Tcb& t, TcpTimer timer, Nanos deadline);
  void ClearTimer(Tcb& t, TcpTimer timer) {
    t.deadlines[static_cast<size_t>(timer)] = Nanos::Max();
  }
  bool TimerIsSet(const Tcb& t, TcpTimer timer) const {
    return t.deadlines[static_cast<size_t>(timer)] != Nanos::Max();
  }
  void ClearTimers(Tcb& t);
  void Fire(Tcb& t, Nanos now);
  void OnRetransmitTimer(Tcb& t, Nanos now);
  void OnPersist(Tcb& t, Nanos now);
  void OnKeepalive(Tcb& t, Nanos now);
  void OnStateTimer(Tcb& t, Nanos now);
  void RestartRetransmitTimer(Tcb& t, Nanos now);
  void KeepRetransmitTimer(Tcb& t, Nanos now);
  bool GivesUp(const Tcb& t, Nanos now) const;
  void StartKeepalive(Tcb& t, Nanos now);

  // tcp_path_mtu.cc
  uint32_t MssFor(const Tcb& t, uint32_t mtu) const;
  void SearchPathMtu(Tcb& t, uint32_t high);
  enum class ProbeStep : uint8_t { kNone, kSent, kWait };
  ProbeStep SendPathProbe(Tcb& t, Nanos now);
  void OnPathProbeArrived(Tcb& t);
  void OnPathProbeLost(Tcb& t);
  void SetPathMtu(Tcb& t, uint32_t mtu, Nanos now);
  void UpdateMss(Tcb& t);
  void CheckPathMtuAge(Tcb& t, Nanos now);
  void OnBlackHole(Tcb& t, Nanos now);

  // tcp_splice.cc
  bool MaySplice(const Tcb& t, const Segment& s, Nanos now) const;
  void BeginSplice(Tcb& t, const Segment& s, Nanos now);
  packet::Verdict PassOn(Tcb& t, packet::Packet& p, Nanos now);
  void Forward(packet::Packet& p, const Relayed& relayed, bool may_carry, Nanos now);
  static uint32_t Note(SpliceSide& side, TcpSeq end);
  static void NoteAcks(SpliceSide& side, const SpliceSide& other);
  static void NoteTimestamp(SpliceSide& side, const wire::TcpView& tcp);
  void NoteFin(SpliceSide& side, SpliceSide& other, TcpSeq end, Nanos now);
  static TcpSeq PeersNext(const SpliceSide& side);
  void TellRelayed(const Tcb& t, uint32_t bytes, Nanos now);
  void TellCarried(Tcb& t, Nanos now);
  void OnCarried(uint64_t token, const Carried& carried, Nanos now) override;
  void DissolveSplice(Tcb& t, Nanos now);
  void CloseSplice(Tcb& t, Nanos now);
  void BreakSplice(Tcb& t, Nanos now);
  void SeverSplice(Tcb& t, TcpSeq sequence, Nanos now);
  void AbortSplice(Tcb& t, Nanos now);
  void PassOnTooBig(const Tcb& t, TcpSeq sequence, uint32_t mtu, Nanos now);

  // tcp_life.cc
  void SetState(Tcb& t, TcpState state) {
    counters_.states[static_cast<size_t>(t.state)].Sub();
    counters_.states[static_cast<size_t>(state)].Add();
    t.state = state;
  }
  Tcb* Make(const Tuple& tuple, const TcpSocketOptions& options, bool evict_half_open, Nanos now);
  bool MakeRoom(bool evict_half_open);
  void Fail(Tcb& t, SocketError error);
  void Finish(Tcb& t);
  void ReleaseTcb(Tcb& t);
  void EnterTimeWait(Tcb& t, Nanos now);
  void LeaveLists(Tcb& t);
  void BecomeOrphan(Tcb& t, Nanos now);
  void LeaveOrphans(Tcb& t);
  void NoteOrphanProgress(Tcb& t, uint32_t acked, Nanos now);
  void ResetStalledOrphans(Nanos now);
  void JoinListener(Tcb& t, uint32_t listener);
  void EndHalfOpen(Tcb& t);
  void LeaveListener(Tcb& t);
  void QueueForAccept(Tcb& t);
  void Raise(Tcb& t, uint8_t event);
  void Dispatch(Nanos now);
  void DispatchListeners(Nanos now);
  Tcb* Resolve(TcpSocket socket);
  TcpListener* Resolve(TcpListenerId id);
  TcpSocket IdOf(const Tcb& t) const { return {tcbs_.IndexOf(t), t.generation}; }
  uint32_t FindConnection(const Tuple& t) const {
    return table_.Find(t, [&](uint32_t i) -> const Tuple& { return tcbs_[i].tuple; });
  }
  std::optional<uint16_t> ChoosePort(const Tuple& t, Nanos now);
  SocketError CheckSend(Tcb& t) const;
  IoResult Write(TcpSocket socket, std::span<const uint8_t> data, bool more, Nanos now);
  uint32_t BufferRoom(const Tcb& t) const;
  uint32_t SendRoom(const Tcb& t) const;
  uint32_t LowWater(const Tcb& t) const {
    return t.options.not_sent_low_water != 0 ? t.options.not_sent_low_water
                                             : config_.not_sent_low_water;
  }
  bool IsBelowLowWater(const Tcb& t) const;

  // Double lists through Tcb::in_list, or another of its links.
  using Links = ListLinks Tcb::*;
  void PushBack(uint32_t& head, uint32_t& tail, Tcb& t, Links links = &Tcb::in_list);
  void Unlink(uint32_t& head, uint32_t& tail, Tcb& t, Links links = &Tcb::in_list);

  const TcpConfig config_;
  const TcpSecrets secrets_;
  PathMtuCache& path_mtus_;
  packet::FramePool& frames_;
  IpLayer& ip_;
  Rng rng_;  // where unpredictable is not needed, or the key seeds it (challenge ACKs)
  TcpCounters counters_;

  Slab<Tcb> tcbs_;
  Slab<TcpListener> listeners_;
  TupleTable table_;
  TupleTable listener_table_;
  TxSegments segments_;
  SendPool send_pool_;
  ReceivePool receive_pool_;
  tables::TimerWheel timers_;

  uint32_t spliced_ = 0;  // pairs
  uint32_t time_wait_head_ = kNoIndex;
  uint32_t time_wait_tail_ = kNoIndex;
  uint32_t time_wait_count_ = 0;
  uint32_t half_open_ = 0;  // of all listeners; the oldest first
  uint32_t half_open_head_ = kNoIndex;
  uint32_t half_open_tail_ = kNoIndex;
  // Those closed by their programs with something left to do, in order of their last progress.
  uint32_t orphans_ = 0;
  uint32_t orphan_head_ = kNoIndex;
  uint32_t orphan_tail_ = kNoIndex;

  // Connections and listeners with something to tell.
  IndexRing ready_;
  std::vector<uint32_t> ready_listeners_;
  // Connections that the burst has left for its end; each at most once.
  std::vector<uint32_t> waiting_for_end_;
  bool in_burst_ = false;

  // Connections that have not sent all that may go, and what this turn may still send: packets that have
  // arrived together, or a call of OnTimer. The layer below has room for so many only, and others' packets
  // are in it as well.
  IndexRing unfinished_;
  uint32_t turn_left_ = 0;
  // Connections that memory for sending keeps waiting, and when they are looked at again: frames also come
  // back where the stack does not see it.
  IndexRing wanting_;
  Nanos memory_retry_ = Nanos::Max();
  Nanos next_orphan_scan_;  // while memory is short
  Nanos latest_;  // the last time that was told

  // RFC 5961 section 7, with a limit that varies by second, so that it cannot be measured from
  // outside.
  int64_t challenge_second_ = -1;
  uint32_t challenges_left_ = 0;
  uint32_t next_port_ = 0;  // RFC 6056's counter
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_TCP_H_
