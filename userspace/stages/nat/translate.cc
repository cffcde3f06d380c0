#include "stages/nat/translate.h"

#include <span>

#include "base/reason.h"
#include "stages/nat/header_end.h"
#include "stages/nat/outer_headers.h"

namespace sluice::stages {

using packet::FrameArena;
using packet::Packet;
using packet::Verdict;
using tables::Flow;
using tables::FlowDirection;

Verdict Translate(const FrameArena& arena, Packet& p, const Flow& flow, FlowDirection direction,
                  NatManip manip) {
  if (!NeedsTranslation(flow, direction, manip)) return Verdict::Continue();
  const Headers h = OuterHeaders(p);
  if (!HasRoom(h)) return Verdict::Drop(DropReason::kNatUntranslatable);
  if (p.fragment_size != 0) {
    packet::GatherL4(arena, p, static_cast<uint32_t>(HeaderSize(p.l4_protocol)));
  }
  // What the packet becomes is the answer to the other direction's packets.
  WriteEnd(h, manip, EndOfInverse(flow.tuple(Opposite(direction)), manip));
  FinishSctp(arena, p, h);
  return Verdict::Continue();
}

bool RestoreOriginal(const FrameArena& arena, Packet& p, const Flow& flow,
                     FlowDirection direction) {
  const Headers h = OuterHeaders(p);
  if (IsIcmpErrorHeader(h)) return RestoreIcmpError(arena, p, flow, direction);
  if (!HasRoom(h)) return true;  // nothing was written either
  // The tuple of a direction is what its packets arrive with.
  bool changed = false;
  for (const NatManip end : {NatManip::kSource, NatManip::kDestination}) {
    const End original = EndOf(flow.tuple(direction), end);
    const End now = ReadEnd(h, end, original);
    if (now.address == original.address && now.number == original.number) continue;
    WriteEnd(h, end, original);
    changed = true;
  }
  if (changed) FinishSctp(arena, p, h);
  return true;
}

}  // namespace sluice::stages
