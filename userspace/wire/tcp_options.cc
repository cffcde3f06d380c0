#include "wire/tcp_options.h"

#include <algorithm>

#include "base/byte_order.h"
#include "wire/tcp.h"

namespace sluice::wire {

namespace {

constexpr size_t kMssSize = 4;
constexpr size_t kWindowScaleSize = 3;
constexpr size_t kSackPermittedSize = 2;
constexpr size_t kTimestampsSize = 10;
constexpr size_t kSackBlockSize = 8;

void ParseOne(const TcpOption& option, bool syn, TcpOptions& out) {
  const uint8_t* p = option.bytes.data();
  const size_t size = option.bytes.size();
  switch (option.kind) {
    case kTcpOptionMss:
      if (syn && size == kMssSize) out.mss = LoadBe16(p + 2);
      return;
    case kTcpOptionWindowScale:
      if (!syn || size != kWindowScaleSize) return;
      out.has_window_scale = true;
      out.window_scale = std::min(p[2], TcpOptions::kMaxWindowScale);
      return;
    case kTcpOptionSackPermitted:
      if (syn && size == kSackPermittedSize) out.sack_permitted = true;
      return;
    case kTcpOptionTimestamps:
      if (size != kTimestampsSize) return;
      out.has_timestamps = true;
      out.ts_value = LoadBe32(p + 2);
      out.ts_echo_reply = LoadBe32(p + 6);
      return;
    case kTcpOptionSack:
      if ((size - 2) % kSackBlockSize != 0) return;
      out.sack_count = 0;
      for (size_t at = 2; at < size && out.sack_count < TcpOptions::kMaxSackBlocks;
           at += kSackBlockSize) {
        out.sack[out.sack_count++] = {TcpSeq(LoadBe32(p + at)), TcpSeq(LoadBe32(p + at + 4))};
      }
      return;
    default:
      return;
  }
}

}  // namespace

TcpOptions ParseTcpOptions(std::span<const uint8_t> options, bool syn) {
  TcpOptions out;
  // What nearly every segment has (RFC 7323 appendix A): two NOPs and the timestamps.
  if (options.size() == 12 && LoadBe32(options.data()) == 0x0101080a) {
    out.has_timestamps = true;
    out.ts_value = LoadBe32(options.data() + 4);
    out.ts_echo_reply = LoadBe32(options.data() + 8);
    return out;
  }
  TcpOptionIterator iterator(options);
  while (const auto option = iterator.Next()) ParseOne(*option, syn, out);
  out.malformed = iterator.malformed();
  return out;
}

size_t TcpOptionsLength(const TcpOptions& o) {
  size_t length = 0;
  if (o.mss != 0) length += 4;
  if (o.has_timestamps) {
    length += 12;  // SACK permitted takes the place of its two NOPs
  } else if (o.sack_permitted) {
    length += 4;
  }
  if (o.has_window_scale) length += 4;
  if (o.sack_count > 0) length += 4 + o.sack_count * kSackBlockSize;
  return length;
}

size_t EmitTcpOptions(std::span<uint8_t> out, const TcpOptions& o) {
  const size_t length = TcpOptionsLength(o);
  if (out.size() < length) return 0;
  uint8_t* p = out.data();
  if (o.mss != 0) {
    StoreBe32(p, uint32_t{kTcpOptionMss} << 24 | kMssSize << 16 | o.mss);
    p += 4;
  }
  if (o.has_timestamps || o.sack_permitted) {
    p[0] = p[1] = kTcpOptionNop;
    if (o.has_timestamps) {
      if (o.sack_permitted) {
        p[0] = kTcpOptionSackPermitted;
        p[1] = kSackPermittedSize;
      }
      p[2] = kTcpOptionTimestamps;
      p[3] = kTimestampsSize;
      StoreBe32(p + 4, o.ts_value);
      StoreBe32(p + 8, o.ts_echo_reply);
      p += 12;
    } else {
      p[2] = kTcpOptionSackPermitted;
      p[3] = kSackPermittedSize;
      p += 4;
    }
  }
  if (o.has_window_scale) {
    StoreBe32(p, uint32_t{kTcpOptionNop} << 24 | uint32_t{kTcpOptionWindowScale} << 16 |
                     kWindowScaleSize << 8 | o.window_scale);
    p += 4;
  }
  if (o.sack_count > 0) {
    p[0] = p[1] = kTcpOptionNop;
    p[2] = kTcpOptionSack;
    p[3] = static_cast<uint8_t>(2 + o.sack_count * kSackBlockSize);
    p += 4;
    for (size_t i = 0; i < o.sack_count; ++i, p += kSackBlockSize) {
      StoreBe32(p, o.sack[i].left.value());
      StoreBe32(p + 4, o.sack[i].right.value());
    }
  }
  return length;
}

}  // namespace sluice::wire
