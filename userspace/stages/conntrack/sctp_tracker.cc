#include "stages/conntrack/sctp_tracker.h"

#include <cstddef>

#include "base/byte_order.h"

namespace sluice::stages {

using packet::FrameArena;
using packet::Packet;
using tables::FlowDirection;
using tables::SctpState;
using tables::SctpTracking;

namespace {

// Chunk types (RFC 9260 section 3.2), those that matter.
enum Chunk : uint8_t {
  kData = 0,
  kInit = 1,
  kInitAck = 2,
  kHeartbeat = 4,
  kHeartbeatAck = 5,
  kAbort = 6,
  kShutdown = 7,
  kShutdownAck = 8,
  kError = 9,
  kCookieEcho = 10,
  kCookieAck = 11,
  kShutdownComplete = 14,
};
constexpr uint8_t kTagReflected = 1;  // the T bit of ABORT and SHUTDOWN COMPLETE
constexpr uint32_t kCommonHeader = 12;
constexpr uint32_t kChunkHeader = 4;
constexpr uint32_t kInitBody = 16;

uint32_t Bit(uint8_t type) { return type < 32 ? uint32_t{1} << type : 0; }

struct ChunkView {
  uint8_t type;
  uint8_t flags;
  uint32_t at;  // from the frame's start
};

uint32_t TagOf(const Packet& p) { return LoadBe32(p.l4() + 4); }

// Calls visit(ChunkView, number) until it says false; true when it never did.
template <class Visitor>
bool ForEachChunk(const Packet& p, const FrameArena& arena, Visitor&& visit) {
  uint32_t number = 0;
  uint32_t at = p.l4_offset + kCommonHeader;
  while (at < p.length && p.length - at >= kChunkHeader) {
    uint8_t header[kChunkHeader];
    packet::CopyOut(arena, p, at, header, kChunkHeader);
    const uint32_t length = LoadBe16(header + 2);
    if (length == 0 || !visit(ChunkView{header[0], header[1], at}, number++)) return false;
    at += (length + 3) & ~uint32_t{3};
  }
  return number > 0;
}

// The initiate tag of an INIT or INIT ACK.
bool InitTag(const Packet& p, const FrameArena& arena, const ChunkView& chunk, uint32_t& tag) {
  const uint32_t at = chunk.at + kChunkHeader;
  if (p.length < at + kInitBody) return false;
  uint8_t bytes[4];
  packet::CopyOut(arena, p, at, bytes, sizeof bytes);
  tag = LoadBe32(bytes);
  return true;
}

// Which chunks there are; false when they may not go together.
bool CollectChunks(const Packet& p, const FrameArena& arena, uint32_t& chunks) {
  if (p.segment_length < p.l4_offset + kCommonHeader) return false;
  chunks = 0;
  bool alone = false;
  return ForEachChunk(p, arena, [&](const ChunkView& chunk, uint32_t number) {
    alone |= chunk.type == kInit || chunk.type == kInitAck || chunk.type == kShutdownComplete;
    const bool first = chunk.type == kCookieAck || chunk.type == kCookieEcho;
    chunks |= Bit(chunk.type);
    return number == 0 || !(alone || first);
  });
}

constexpr uint8_t kInvalidState = 255;

uint8_t NextState(FlowDirection direction, uint8_t state, uint8_t chunk) {
  constexpr uint8_t IV = kInvalidState, CL = 1, CW = 2, CE = 3, ES = 4, SS = 5, SR = 6, SA = 7,
                    HS = 8;
  // Columns: none, CLosed, Cookie Wait, Cookie Echoed, EStablished, Shutdown Sent, Shutdown
  // Received, Shutdown Ack sent, Heartbeat Sent.
  constexpr uint8_t kTable[2][11][9] = {
      {
          {CL, CL, CW, CE, ES, CL, CL, SA, CW},  // INIT
          {CL, CL, CW, CE, ES, SS, SR, SA, CL},  // INIT ACK
          {CL, CL, CL, CL, CL, CL, CL, CL, CL},  // ABORT
          {CL, CL, CW, CE, SS, SS, SR, SA, CL},  // SHUTDOWN
          {SA, CL, CW, CE, ES, SA, SA, SA, SA},  // SHUTDOWN ACK
          {CL, CL, CW, CE, ES, SS, SR, SA, CL},  // ERROR
          {CL, CL, CE, CE, ES, SS, SR, SA, CL},  // COOKIE ECHO
          {CL, CL, CW, ES, ES, SS, SR, SA, CL},  // COOKIE ACK
          {CL, CL, CW, CE, ES, SS, SR, CL, CL},  // SHUTDOWN COMPLETE
          {HS, CL, CW, CE, ES, SS, SR, SA, HS},  // HEARTBEAT
          {CL, CL, CW, CE, ES, SS, SR, SA, HS},  // HEARTBEAT ACK
      },
      {
          {IV, CL, CW, CE, ES, SS, SR, SA, IV},
          {IV, CW, CW, CE, ES, SS, SR, SA, IV},
          {IV, CL, CL, CL, CL, CL, CL, CL, IV},
          {IV, CL, CW, CE, SR, SS, SR, SA, IV},
          {IV, CL, CW, CE, ES, SA, SA, SA, IV},
          {IV, CL, CW, CL, ES, SS, SR, SA, IV},
          {IV, CL, CE, CE, ES, SS, SR, SA, IV},
          {IV, CL, CW, ES, ES, SS, SR, SA, IV},
          {IV, CL, CW, CE, ES, SS, SR, CL, IV},
          {IV, CL, CW, CE, ES, SS, SR, SA, HS},
          {IV, CL, CW, CE, ES, SS, SR, SA, ES},
      }};
  size_t row = 0;
  switch (chunk) {
    case kInit: row = 0; break;
    case kInitAck: row = 1; break;
    case kAbort: row = 2; break;
    case kShutdown: row = 3; break;
    case kShutdownAck: row = 4; break;
    case kError: row = 5; break;
    case kCookieEcho: row = 6; break;
    case kCookieAck: row = 7; break;
    case kShutdownComplete: row = 8; break;
    case kHeartbeat: row = 9; break;
    case kHeartbeatAck: row = 10; break;
    default: return state;
  }
  return kTable[static_cast<size_t>(direction)][row][state];
}

struct Step {
  SctpTracking& sctp;
  size_t from;
  size_t to;
  uint32_t tag;     // of the packet
  uint32_t chunks;  // Bit of each
  bool ignored = false;
};

bool TagFits(const Step& step, const ChunkView& chunk) {
  const bool reflected = (chunk.flags & kTagReflected) != 0;
  return step.tag == step.sctp.tags[reflected ? step.to : step.from];
}

enum class TagCheck : uint8_t { kOk, kIgnore, kWrong };

// Another tag may be that of the association after a restart; if the other side answers to it.
TagCheck CheckHeartbeat(Step& step, bool is_ack) {
  SctpTracking& sctp = step.sctp;
  uint32_t& known = sctp.tags[step.from];
  if (known == 0) {
    known = step.tag;
    return TagCheck::kOk;
  }
  if (step.tag == known) {
    sctp.heartbeat_failed = false;
    return TagCheck::kOk;
  }
  if ((step.chunks & Bit(kData)) != 0 || step.ignored) return TagCheck::kWrong;
  if (!is_ack) {
    sctp.heartbeat_failed = true;
    sctp.last_direction = static_cast<uint8_t>(step.from);
    return TagCheck::kIgnore;
  }
  if (!sctp.heartbeat_failed || sctp.last_direction == step.from) return TagCheck::kWrong;
  sctp.heartbeat_failed = false;
  known = step.tag;
  sctp.tags[step.to] = 0;
  return TagCheck::kOk;
}

// RFC 9260 section 8.5.1.
TagCheck CheckTag(Step& step, const ChunkView& chunk) {
  bool right = true;
  switch (chunk.type) {
    case kInit:
      right = step.tag == 0;
      break;
    case kAbort:
    case kShutdownComplete:
      right = TagFits(step, chunk);
      break;
    case kCookieEcho:
      right = step.tag == step.sctp.tags[step.from];
      break;
    case kCookieAck:
      step.sctp.init = {};
      break;
    case kHeartbeat:
    case kHeartbeatAck:
      return CheckHeartbeat(step, chunk.type == kHeartbeatAck);
    default:
      break;
  }
  return right ? TagCheck::kOk : TagCheck::kWrong;
}

// Notes the tag that an INIT or INIT ACK asks the other side to use.
bool NoteTag(Step& step, bool is_ack, bool first, uint32_t tag) {
  SctpTracking& sctp = step.sctp;
  uint32_t& wanted = sctp.tags[step.to];
  if (!is_ack) {
    if (wanted == tag && !first) return true;  // a repetition
    if (sctp.init[step.from] && sctp.init[step.to]) sctp.init[step.to] = false;
    sctp.init[step.from] = true;
  } else {
    if (!sctp.init[step.to] && wanted != 0 && wanted != tag) return false;
    // Both sides began at the same time.
    if (sctp.init[step.from] && sctp.init[step.to] && wanted != tag) return false;
  }
  wanted = tag;
  return true;
}

}  // namespace

bool BeginSctp(const Packet& p, const FrameArena& arena, SctpTracking& tracking) {
  tracking = SctpTracking{};
  uint32_t chunks = 0;
  if (!CollectChunks(p, arena, chunks)) return false;
  // Out of the blue (section 8.4): no answer is due to these.
  if ((chunks & (Bit(kAbort) | Bit(kShutdownComplete) | Bit(kCookieAck))) != 0) return false;
  const uint32_t packet_tag = TagOf(p);
  return ForEachChunk(p, arena, [&](const ChunkView& chunk, uint32_t) {
    const uint8_t next = NextState(FlowDirection::kOriginal, 0, chunk.type);
    if (next == 0 || next == kInvalidState) return false;
    if (chunk.type == kInit) return packet_tag == 0 && InitTag(p, arena, chunk, tracking.tags[1]);
    if (chunk.type == kHeartbeat) tracking.tags[0] = packet_tag;
    if (chunk.type == kShutdownAck) tracking.tags[1] = packet_tag;
    return true;
  });
}

TrackResult TrackSctp(tables::Flow& flow, FlowDirection direction, const Packet& p,
                      const FrameArena& arena, const tables::ConntrackSettings& settings) {
  uint32_t chunks = 0;
  if (!CollectChunks(p, arena, chunks)) return TrackResult::Invalid();
  SctpTracking& sctp = flow.sctp;
  Step step{sctp, static_cast<size_t>(direction), static_cast<size_t>(Opposite(direction)),
            TagOf(p), chunks};
  constexpr uint8_t kOwnRules[] = {kInit,        kShutdownComplete, kCookieEcho,  kAbort,
                                   kShutdownAck, kHeartbeat,        kHeartbeatAck};
  uint32_t own_rules = 0;
  for (const uint8_t type : kOwnRules) own_rules |= Bit(type);
  if ((chunks & own_rules) == 0 && step.tag != sctp.tags[step.from]) return TrackResult::Invalid();

  uint8_t next = 0;
  const bool fine = ForEachChunk(p, arena, [&](const ChunkView& chunk, uint32_t) {
    switch (CheckTag(step, chunk)) {
      case TagCheck::kOk: break;
      case TagCheck::kIgnore: step.ignored = true; return true;
      case TagCheck::kWrong: return false;
    }
    const uint8_t before = sctp.state;
    next = NextState(direction, before, chunk.type);
    if (next == kInvalidState) return false;
    if (chunk.type == kInit || chunk.type == kInitAck) {
      uint32_t tag = 0;
      if (!InitTag(p, arena, chunk, tag) ||
          !NoteTag(step, chunk.type == kInitAck, !flow.Has(tables::kFlowConfirmed), tag)) {
        return false;
      }
    }
    constexpr auto kClosed = static_cast<uint8_t>(SctpState::kClosed);
    // Repeated INITs do not keep a flow alive, nor its translation.
    if (chunk.type == kInit && before == kClosed && next == kClosed &&
        flow.Has(tables::kFlowConfirmed)) {
      step.ignored = true;
    }
    sctp.state = next;
    if (before != next && next == static_cast<uint8_t>(SctpState::kEstablished)) {
      flow.status |= tables::kFlowAssured;
    }
    return true;
  });
  if (!fine) return TrackResult::Invalid();
  if (step.ignored) return TrackResult::Pass();
  return TrackResult::Refresh(settings.sctp_timeout(static_cast<SctpState>(next)));
}

}  // namespace sluice::stages
