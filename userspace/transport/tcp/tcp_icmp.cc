// The path's MTU (RFC 1191, RFC 8201), and other ICMP errors (RFC 5927: believed only about what is in
// flight). Where large segments vanish without a word, the size comes down by itself (after RFC 4821).
#include <algorithm>
#include <array>

#include "transport/common/datagram.h"
#include "transport/tcp/tcp.h"

namespace sluice::transport {

namespace {

// Below this nothing is believed: RFC 8201 section 4 for IPv6; for IPv4 what Linux takes
// (min_pmtu).
constexpr uint32_t LeastMtu(bool v4) { return v4 ? 552 : 1280; }

// RFC 1191 section 7.1, for routers that do not tell.
constexpr std::array<uint32_t, 9> kPlateaus = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296};

// RFC 7323 appendix A's 12 bytes in each segment.
constexpr uint32_t kTimestampBytes = 12;
constexpr uint32_t kLeastBlackHoleMss = 512;
// So many timeouts in a row, as Linux (tcp_retries1); two more, and 512 it is.
constexpr uint8_t kBlackHoleTimeouts = 3;

}  // namespace

void Tcp::UpdateMss(Tcb& t) {
  const uint32_t headers = IpHeaderSize(t.tuple.is_v4()) + wire::TcpView::kMinSize;
  uint32_t most = std::min<uint32_t>(t.path_mtu, 65535) - headers;
  // A segment of ours must fit a frame.
  const uint32_t room = frames_.arena().chunk_size() - packet::kHeadroom -
                        wire::kEthernetHeaderSize - headers;
  most = std::min({most, uint32_t{t.peer_mss}, room});
  if (t.options.max_segment != 0) most = std::min<uint32_t>(most, t.options.max_segment);
  if (t.ts_enabled) most -= std::min(kTimestampBytes, most / 2);
  t.mss = static_cast<uint16_t>(most);
  t.congestion.set_mss(t.mss);
}

void Tcp::SetPathMtu(Tcb& t, uint32_t mtu, Nanos now) {
  if (mtu >= t.path_mtu) return;
  t.path_mtu = mtu;
  t.path_mtu_expires = now + config_.times.pmtu_aging;
  counters_.path_mtu_changes.Add();
  UpdateMss(t);
}

void Tcp::CheckPathMtuAge(Tcb& t, Nanos now) {
  if (now < t.path_mtu_expires) return;
  t.path_mtu_expires = Nanos::Max();
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
  SetPathMtu(t, size + headers, now);
}

bool Tcp::OnIcmpError(const TcpIcmpError& error, Nanos now) {
  const uint32_t index = FindConnection(error.tuple);
  if (index == kNoIndex) return false;
  Tcb& t = tcbs_[index];
  // RFC 5927 section 4.1.
  if (t.state == TcpState::kTimeWait || error.sequence.Before(t.snd_una) ||
      error.sequence.AtOrAfter(t.snd_nxt)) {
    return true;
  }
  switch (error.kind) {
    case TcpIcmpError::Kind::kTooBig: {
      const bool v4 = t.tuple.is_v4();
      uint32_t mtu = error.mtu;
      if (mtu == 0 && v4) {
        mtu = *std::find_if(kPlateaus.begin(), kPlateaus.end() - 1,
                            [&](uint32_t plateau) { return plateau < t.path_mtu; });
      }
      if (!v4 && mtu < LeastMtu(v4)) return true;
      const uint32_t before = t.mss;
      SetPathMtu(t, std::max(mtu, LeastMtu(v4)), now);
      if (t.mss >= before || !t.was_established) return true;
      // What is too large will not arrive: again at once, and without a reduction, since it was not
      // congestion (RFC 1191 section 6.5).
      for (uint32_t i = t.scoreboard.head(); i != kNoIndex; i = segments_[i].next) {
        if (segments_[i].payload() > t.mss) t.scoreboard.MarkLost(segments_, i);
      }
      Output(t, now);
      return true;
    }
    case TcpIcmpError::Kind::kHard:
      // RFC 5461: in the handshake it ends it, later it is only a hint (RFC 9293 section 3.9.2.2).
      if (!t.was_established) Fail(t, SocketError::kUnreachable);
      break;
    case TcpIcmpError::Kind::kSoft:
      break;
  }
  Dispatch(now);
  return true;
}

}  // namespace sluice::transport
