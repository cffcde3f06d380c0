// One packet out of a file that tcpdump has written (pcap or pcapng).
//
// Refuses link types other than Ethernet and raw IP, and packets that were cut when captured.
//
// Thread: any; no state.
#ifndef SLUICE_APP_PCAP_FILE_H_
#define SLUICE_APP_PCAP_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::app {

// `number` counts from 1. Raw IP packets get an Ethernet header with zero addresses.
absl::StatusOr<std::vector<uint8_t>> ReadPcapPacket(const std::string& path, uint64_t number);

}  // namespace sluice::app

#endif  // SLUICE_APP_PCAP_FILE_H_
