#include "app/pcap_file.h"

#include <pcap/pcap.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "wire/ethernet.h"

namespace sluice::app {
namespace {

struct ClosePcap {
  void operator()(pcap_t* p) const { pcap_close(p); }
};

}  // namespace

absl::StatusOr<std::vector<uint8_t>> ReadPcapPacket(const std::string& path, uint64_t number) {
  char error[PCAP_ERRBUF_SIZE] = "";
  const std::unique_ptr<pcap_t, ClosePcap> pcap(pcap_open_offline(path.c_str(), error));
  if (pcap == nullptr) return absl::InvalidArgumentError(error);  // it names the file
  const int link_type = pcap_datalink(pcap.get());
  const bool raw = link_type == DLT_RAW || link_type == DLT_IPV4 || link_type == DLT_IPV6;
  if (link_type != DLT_EN10MB && !raw) {
    const char* const name = pcap_datalink_val_to_name(link_type);
    return absl::InvalidArgumentError(absl::StrCat(path, ": packets of link type ",
                                                   name == nullptr ? "unknown" : name,
                                                   "; Ethernet or raw IP is needed"));
  }
  pcap_pkthdr* header = nullptr;
  const u_char* data = nullptr;
  for (uint64_t n = 1; n <= number; ++n) {
    const int result = pcap_next_ex(pcap.get(), &header, &data);
    if (result == PCAP_ERROR_BREAK) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": there are only ", n - 1, " packets"));
    }
    if (result != 1) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", pcap_geterr(pcap.get())));
    }
  }
  if (header == nullptr) return absl::InvalidArgumentError("packets are numbered from 1");
  if (header->caplen < header->len) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": packet ", number, " was cut at ", header->caplen, " of ", header->len,
        " bytes (capture with tcpdump -s 0)"));
  }
  std::vector<uint8_t> frame;
  if (raw) {
    frame.resize(wire::kEthernetHeaderSize);
    const bool v6 = header->caplen > 0 && data[0] >> 4 == 6;
    wire::WriteEthernet(frame.data(), Mac{}, Mac{},
                        v6 ? wire::kEtherTypeIpv6 : wire::kEtherTypeIpv4);
  }
  frame.insert(frame.end(), data, data + header->caplen);
  return frame;
}

}  // namespace sluice::app
