#include "app/trace_filter.h"

#include <pcap/pcap.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/byte_order.h"
#include "telemetry/view_json.h"

namespace sluice::app {
namespace {

constexpr int kSnapLength = 65'549;
constexpr size_t kInstructionBytes = 8;

struct ClosePcap {
  void operator()(pcap_t* p) const { pcap_close(p); }
};

class Program {
 public:
  Program() = default;
  ~Program() { pcap_freecode(&program); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  bpf_program program{};
};

}  // namespace

absl::StatusOr<std::string> CompileTraceFilter(const std::string& text) {
  if (text.find_first_not_of(" \t\n") == std::string::npos) return std::string();
  const std::unique_ptr<pcap_t, ClosePcap> pcap(pcap_open_dead(DLT_EN10MB, kSnapLength));
  if (pcap == nullptr) return absl::ResourceExhaustedError("no memory for libpcap");
  Program compiled;
  if (pcap_compile(pcap.get(), &compiled.program, text.c_str(), /*optimize=*/1,
                   PCAP_NETMASK_UNKNOWN) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a filter (see pcap-filter(7)): ", pcap_geterr(pcap.get())));
  }
  std::vector<uint8_t> bytes;
  for (u_int i = 0; i < compiled.program.bf_len; ++i) {
    const bpf_insn& in = compiled.program.bf_insns[i];
    uint8_t raw[kInstructionBytes];
    StoreBe16(raw, in.code);
    raw[2] = in.jt;
    raw[3] = in.jf;
    StoreBe32(raw + 4, in.k);
    bytes.insert(bytes.end(), raw, raw + sizeof raw);
  }
  return telemetry::ToHex(bytes);
}

absl::StatusOr<dataplane::PacketFilter> ReadTraceFilter(std::string_view program) {
  dataplane::PacketFilter filter;
  if (program.empty()) return filter;
  const auto bytes = telemetry::FromHex(program);
  std::vector<dataplane::FilterInstruction> instructions;
  if (bytes && bytes->size() % kInstructionBytes == 0) {
    for (size_t at = 0; at < bytes->size(); at += kInstructionBytes) {
      const uint8_t* const p = bytes->data() + at;
      instructions.push_back({LoadBe16(p), p[2], p[3], LoadBe32(p + 4)});
    }
  }
  if (!dataplane::PacketFilter::Make(std::move(instructions), &filter)) {
    return absl::InvalidArgumentError("\"program\" is not a BPF program that can be run");
  }
  return filter;
}

}  // namespace sluice::app
