// What a protocol's tracker says about a packet of a flow.
#ifndef SLUICE_STAGES_CONNTRACK_TRACK_RESULT_H_
#define SLUICE_STAGES_CONNTRACK_TRACK_RESULT_H_

#include <cstdint>

#include "base/time.h"

namespace sluice::stages {

struct TrackResult {
  enum class Kind : uint8_t {
    kRefresh,  // it keeps the flow alive for `timeout` from now on, and is counted
    kPass,     // part of the flow, but neither
    kInvalid,  // not part of the flow
    kReopen,   // the flow is over, and this packet begins another one with the same tuple
    kEnd,      // counted, and then the flow is over
  };

  static constexpr TrackResult Refresh(Nanos timeout) { return {Kind::kRefresh, timeout}; }
  static constexpr TrackResult Pass() { return {Kind::kPass, Nanos()}; }
  static constexpr TrackResult Invalid() { return {Kind::kInvalid, Nanos()}; }
  static constexpr TrackResult Reopen() { return {Kind::kReopen, Nanos()}; }
  static constexpr TrackResult End() { return {Kind::kEnd, Nanos()}; }

  Kind kind = Kind::kInvalid;
  Nanos timeout;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_CONNTRACK_TRACK_RESULT_H_
