// The path's MTU (RFC 1191, RFC 8201), and other ICMP errors (RFC 5927: believed only about what is in
// flight). Where large segments vanish without a word, the size comes down by itself (after RFC 4821).
#include <algorithm>
#include <array>

#include "transport/common/datagram.h"
#include "transport/tcp/tcp.h"

namespace sluice::transport {

namespace {

// RFC 1191 section 7.1, for routers that do not tell.
constexpr std::array<uint32_t, 9> kPlateaus = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296};

}  // namespace

bool Tcp::OnIcmpError(const TcpIcmpError& error, Nanos now) {
  const uint32_t index = FindConnection(error.tuple);
  if (index == kNoIndex) return false;
  Tcb& t = tcbs_[index];
  if (t.spliced) {
    if (error.kind == TcpIcmpError::Kind::kTooBig && error.mtu != 0) {
      PassOnTooBig(t, error.sequence, std::max(error.mtu, LeastPathMtu(t.tuple.is_v4())), now);
    }
    return true;
  }
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
      if (!v4 && mtu < LeastPathMtu(v4)) return true;
      if (mtu >= t.path_mtu && mtu < t.path_probe.size) {
        // It is about a probe, and says what to try next (RFC 8899 section 4.6.1).
        OnPathProbeLost(t);
        t.path_probe.high = mtu;
        t.path_probe.tries = 0;
        t.path_probe.high_untried = true;
        for (uint32_t i = t.scoreboard.head(); i != kNoIndex; i = segments_[i].next) {
          if (segments_[i].Has(kTxProbe)) t.scoreboard.MarkLost(segments_, i);
        }
        Output(t, now);
        return true;
      }
      const uint32_t before = t.mss;
      mtu = std::max(mtu, LeastPathMtu(v4));
      if (mtu < t.path_mtu) path_mtus_.Learn(t.tuple.remote.address, mtu, now);
      SetPathMtu(t, mtu, now);
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

void Tcp::OnSevered(const Tuple& tuple, wire::TcpSeq sequence, Nanos now) {
  const uint32_t index = FindConnection(tuple);
  if (index == kNoIndex) return;
  Tcb& t = tcbs_[index];
  if (t.spliced) {
    SeverSplice(t, sequence, now);
    return Dispatch(now);
  }
  if (t.state == TcpState::kTimeWait || sequence.Before(t.rcv_nxt) || sequence.After(t.rcv_adv)) {
    return;
  }
  Fail(t, SocketError::kReset);
  Dispatch(now);
}

}  // namespace sluice::transport
