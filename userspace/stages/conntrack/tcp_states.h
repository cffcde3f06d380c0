// TCP's state transitions: tcp_conntracks of net/netfilter/nf_conntrack_proto_tcp.c, as data.
//
// Rows by the kind of segment (SYN, SYN-ACK, FIN, ACK, RST, none of them), columns by the state so
// far. Some cells worth a word:
//   FIN-WAIT is "a FIN was seen"; who sent it does not matter. CLOSE-WAIT is "and acknowledged".
//   LAST-ACK is "FINs of both were seen". An ACK ends that, whoever's.
//   SYN of the original side in a connection that is up: ignored. Its TCP may have forgotten it
//   all, and the other side will tell (RFC 9293 section 3.5.1).
//   SYN of the other side in TIME-WAIT: a new connection, the roles changed.
#ifndef SLUICE_STAGES_CONNTRACK_TCP_STATES_H_
#define SLUICE_STAGES_CONNTRACK_TCP_STATES_H_

#include <cstddef>
#include <cstdint>

#include "stages/conntrack/tcp_segment.h"
#include "tables/flow.h"

namespace sluice::stages {

enum class TcpNext : uint8_t {
  kNone, kSynSent, kSynReceived, kEstablished, kFinWait, kCloseWait, kLastAck, kTimeWait, kClose,
  kSynSent2,  // so far TcpState
  kInvalid,
  kIgnore,
};

namespace tcp_states {

inline constexpr TcpNext IV = TcpNext::kInvalid, IG = TcpNext::kIgnore, SS = TcpNext::kSynSent,
                         SR = TcpNext::kSynReceived, ES = TcpNext::kEstablished,
                         FW = TcpNext::kFinWait, CW = TcpNext::kCloseWait, LA = TcpNext::kLastAck,
                         TW = TcpNext::kTimeWait, CL = TcpNext::kClose, S2 = TcpNext::kSynSent2;

inline constexpr TcpNext kTable[2][6][10] = {
    {
        // NO SS SR ES FW CW LA TW CL S2     of the original side
        {SS, SS, IG, IG, IG, IG, IG, SS, SS, S2},  // SYN
        {IV, IV, SR, IV, IV, IV, IV, IV, IV, SR},  // SYN-ACK
        {IV, IV, FW, FW, LA, LA, LA, TW, CL, IV},  // FIN
        {ES, IV, ES, ES, CW, CW, TW, TW, CL, IV},  // ACK
        {IV, CL, CL, CL, CL, CL, CL, CL, CL, CL},  // RST
        {IV, IV, IV, IV, IV, IV, IV, IV, IV, IV},  // none
    },
    {
        // of the other side
        {IV, S2, IV, IV, IV, IV, IV, SS, IV, S2},
        {IV, SR, IG, IG, IG, IG, IG, IG, IG, SR},
        {IV, IV, FW, FW, LA, LA, LA, TW, CL, IV},
        {IV, IG, SR, ES, CW, CW, TW, TW, CL, IG},
        {IV, CL, CL, CL, CL, CL, CL, CL, CL, CL},
        {IV, IV, IV, IV, IV, IV, IV, IV, IV, IV},
    }};

}  // namespace tcp_states

constexpr TcpNext NextTcpState(tables::FlowDirection direction, SegmentKind kind,
                               tables::TcpState state) {
  return tcp_states::kTable[static_cast<size_t>(direction)][static_cast<size_t>(kind)]
                           [static_cast<size_t>(state)];
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_CONNTRACK_TCP_STATES_H_
