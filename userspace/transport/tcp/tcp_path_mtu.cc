// The path's MTU: what is believed, for how long, and how it is found where no router tells (RFC 4821 and
// RFC 8899: black holes are detected by repeated timeouts, then the search goes upwards).
//
// A probe is a segment of new data that is larger than the others, so it costs nothing when it arrives,
// and one retransmission, but no reduction of the window, when it does not (RFC 4821 section 7.6.2).
#include <algorithm>

#include "transport/common/datagram.h"
#include "transport/tcp/tcp.h"

namespace sluice::transport {

namespace {

// RFC 7323 appendix A's 12 bytes in each segment.
constexpr uint32_t kTimestampBytes = 12;
constexpr uint32_t kLeastBlackHoleMss = 512;
// So many timeouts in a row, as Linux (tcp_retries1); two more, and 512 it is.
constexpr uint8_t kBlackHoleTimeouts = 3;
// RFC 8899 section 5.1.2.
constexpr uint8_t kMaxProbes = 3;
// Not worth a probe (Linux' tcp_probe_threshold).
constexpr uint32_t kSearchEnds = 8;
// So many segments behind a probe, or its loss could not be told from a timeout.
constexpr uint32_t kSegmentsBehind = 3;

}  // namespace

// The largest segment for a path of this MTU: also the peer and the size of a frame limit it.
uint32_t Tcp::MssFor(const Tcb& t, uint32_t mtu) const {
  const uint32_t headers = IpHeaderSize(t.tuple.is_v4()) + wire::TcpView::kMinSize;
  const uint32_t room = frames_.arena().chunk_size() - packet::kHeadroom -
                        wire::kEthernetHeaderSize - headers;
  uint32_t most = std::min({std::min<uint32_t>(mtu, 65535) - headers, uint32_t{t.peer_mss}, room});
  if (t.options.max_segment != 0) most = std::min<uint32_t>(most, t.options.max_segment);
  if (t.ts_enabled) most -= std::min(kTimestampBytes, most / 2);
  return most;
}

void Tcp::UpdateMss(Tcb& t) {
  t.mss = static_cast<uint16_t>(MssFor(t, t.path_mtu));
  t.congestion.set_mss(t.mss);
}

void Tcp::SetPathMtu(Tcb& t, uint32_t mtu, Nanos now) {
  if (mtu >= t.path_mtu) return;
  t.path_mtu = mtu;
  t.path_mtu_expires = now + config_.times.pmtu_aging;
  counters_.path_mtu_changes.Add();
  UpdateMss(t);
}

// What a router has told is tried again as it was, since the router will tell again; what was found by
// searching is searched again (RFC 8899's PMTU_RAISE_TIMER).
void Tcp::CheckPathMtuAge(Tcb& t, Nanos now) {
  if (now < t.path_mtu_expires) return;
  t.path_mtu_expires = Nanos::Max();
  if (t.path_probe.used) return SearchPathMtu(t, t.link_mtu);
  t.path_mtu = t.link_mtu;
  UpdateMss(t);
}

// Repeated timeouts of a segment that smaller ones might not have met.
void Tcp::OnBlackHole(Tcb& t, Nanos now) {
  const uint32_t headers = IpHeaderSize(t.tuple.is_v4()) + wire::TcpView::kMinSize;
  const uint32_t payload = segments_[t.scoreboard.head()].payload();
  if (t.timeouts_in_a_row < kBlackHoleTimeouts) return;
  const bool again = t.timeouts_in_a_row >= 2 * kBlackHoleTimeouts - 1;
  const uint32_t size = again ? kLeastBlackHoleMss : config_.base_mss;
  if (payload <= size || t.path_mtu <= size + headers) return;
  counters_.black_holes.Add();
  const uint32_t before = std::max(t.path_mtu, t.path_probe.high);
  SetPathMtu(t, size + headers, now);
  // It may have been something else: what worked before is the first to be tried.
  SearchPathMtu(t, before);
}

void Tcp::SearchPathMtu(Tcb& t, uint32_t high) {
  t.path_probe = {.high = high, .used = true, .high_untried = true};
  t.path_mtu_expires = Nanos::Max();
}

// Before new data is sent: a probe, if one is due and may be sent. kWait: it is, and new data is to wait
// until the window has room for it.
Tcp::ProbeStep Tcp::SendPathProbe(Tcb& t, Nanos now) {
  PathProbe& probe = t.path_probe;
  if (probe.size != 0 || !t.sack_enabled || t.recovery != Recovery::kOpen || t.fin_sent ||
      t.scoreboard.sacked_bytes() > 0 || t.scoreboard.lost_bytes() > 0) {
    return ProbeStep::kNone;
  }
  if (probe.high < t.path_mtu + kSearchEnds || MssFor(t, probe.high) <= t.mss) {
    probe.high = 0;
    if (t.path_mtu < t.link_mtu) t.path_mtu_expires = now + config_.times.pmtu_aging;
    return ProbeStep::kNone;
  }
  const uint32_t size = probe.high_untried ? probe.high : (t.path_mtu + probe.high + 1) / 2;
  const uint32_t payload = MssFor(t, size);
  const uint32_t needed = payload + kSegmentsBehind * t.mss;
  const TcpSeq edge = t.snd_una + t.snd_wnd;
  if (t.Unsent() < needed || (t.snd_nxt + needed).After(edge) || needed > t.congestion.cwnd()) {
    return ProbeStep::kNone;
  }
  if (Pipe(t) + payload > t.congestion.cwnd()) return ProbeStep::kWait;
  // A segment has data of one record.
  if (t.send.WithinRecord(send_pool_, t.snd_nxt, payload).length < payload) return ProbeStep::kNone;
  if (!SendNew(t, {.length = payload, .probe = true}, false, now)) return ProbeStep::kNone;
  probe.size = size;
  probe.end = t.snd_nxt;
  counters_.path_probes.Add();
  return ProbeStep::kSent;
}

void Tcp::OnPathProbeArrived(Tcb& t) {
  PathProbe& probe = t.path_probe;
  if (probe.size <= t.path_mtu) return;
  t.path_mtu = probe.size;
  probe.size = 0;
  probe.tries = 0;
  probe.high_untried = false;
  counters_.path_mtu_changes.Add();
  UpdateMss(t);
}

void Tcp::OnPathProbeLost(Tcb& t) {
  PathProbe& probe = t.path_probe;
  if (probe.size == 0) return;
  if (++probe.tries >= kMaxProbes) {
    probe.high = probe.size - 1;
    probe.high_untried = false;
    probe.tries = 0;
  }
  probe.size = 0;
}

}  // namespace sluice::transport
