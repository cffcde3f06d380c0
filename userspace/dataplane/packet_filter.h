// Filters in pcap's syntax, as tcpdump has them, run on packets: an interpreter of classic BPF.
//
// The instruction set is that of McCanne and Jacobson's paper (USENIX 1993), numbers as in
// linux/filter.h; libpcap compiles a text to it (app/trace_filter.h). Programs can only jump forward
// and are checked before they are taken, so that Run always ends and reads no memory but the packet
// and its own 16 cells. A load behind the packet's end means that the filter does not match.
//
// Thread: any; Run has no state. Cost: a few nanoseconds per instruction; only while a trace runs.
#ifndef SLUICE_DATAPLANE_PACKET_FILTER_H_
#define SLUICE_DATAPLANE_PACKET_FILTER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sluice::dataplane {

struct FilterInstruction {
  uint16_t code = 0;
  uint8_t if_true = 0;
  uint8_t if_false = 0;
  uint32_t k = 0;
  bool operator==(const FilterInstruction&) const = default;
};

inline constexpr size_t kMaxFilterInstructions = 4096;
inline constexpr size_t kFilterCells = 16;

class PacketFilter {
 public:
  PacketFilter() = default;  // matches everything

  // False, and `out` untouched, when the program is not one that may be run.
  static bool Make(std::vector<FilterInstruction> program, PacketFilter* out);

  // `bytes` are those at hand, `length` is how many the packet has.
  bool Matches(std::span<const uint8_t> bytes, uint32_t length) const {
    return program_.empty() || Run(bytes, length) != 0;
  }
  uint32_t Run(std::span<const uint8_t> bytes, uint32_t length) const;

 private:
  std::vector<FilterInstruction> program_;
};

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_PACKET_FILTER_H_
