// Descriptions of packets: any text is refused or makes a frame whose own description, read again,
// makes the same frame; any frame has a description.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "control/packet_text/packet_text.h"

using sluice::control::DescribePacket;
using sluice::control::ParsePacketText;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  DescribePacket(std::span(data, size), true);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto frame = ParsePacketText(text);
  if (!frame.ok()) return 0;
  const std::string description = DescribePacket(*frame, true);
  const auto again = ParsePacketText(description);
  if (!again.ok() || *again != *frame) {
    std::fprintf(stderr, "%s\n%s\n", description.c_str(), again.status().ToString().c_str());
    std::abort();
  }
  return 0;
}
