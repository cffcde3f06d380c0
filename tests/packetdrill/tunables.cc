#include "packetdrill/tunables.h"

#include <array>
#include <fstream>
#include <string>

namespace sluice::test {

namespace {

std::ifstream Open(const char* name) {
  return std::ifstream(std::string("/proc/sys/net/ipv4/") + name);
}

int64_t Number(const char* name, int64_t otherwise) {
  int64_t value = 0;
  return Open(name) >> value ? value : otherwise;
}

// least, initial, most
std::array<uint32_t, 3> Triple(const char* name, std::array<uint32_t, 3> otherwise) {
  std::array<uint32_t, 3> v{};
  return Open(name) >> v[0] >> v[1] >> v[2] ? v : otherwise;
}

}  // namespace

transport::EcnMode ReadEcn() {
  switch (Number("tcp_ecn", 2)) {
    case 0: return transport::EcnMode::kOff;
    case 1: return transport::EcnMode::kActive;
    default: return transport::EcnMode::kPassive;
  }
}

Tunables ReadTunables() {
  Tunables t;
  t.tcp.limits.connections = 64;
  t.tcp.limits.time_wait = 32;
  t.tcp.timestamps = Number("tcp_timestamps", 1) != 0;
  t.tcp.sack = Number("tcp_sack", 1) != 0;
  t.tcp.window_scaling = Number("tcp_window_scaling", 1) != 0;
  t.tcp.syn_cookies = Number("tcp_syncookies", 1) != 0;
  t.tcp.ecn = ReadEcn();
  const auto receive = Triple("tcp_rmem", {4096, 131072, 6291456});
  t.tcp.receive_buffer_initial = receive[1];
  t.tcp.receive_buffer_max = receive[2];
  const auto send = Triple("tcp_wmem", {4096, 16384, 4194304});
  t.tcp.send_buffer_initial = send[1];
  t.tcp.send_buffer_max = send[2];
  t.tcp.not_sent_low_water =
      static_cast<uint32_t>(Number("tcp_notsent_lowat", transport::kNoLowWater));
  t.tcp.restart_after_idle = Number("tcp_slow_start_after_idle", 1) != 0;
  t.tcp.tail_loss_probes = Number("tcp_early_retrans", 3) >= 3;
  t.tcp.slow_start_limit = 0;  // Linux has none
  t.tcp.least_burst = static_cast<uint8_t>(Number("tcp_min_tso_segs", 2));
  t.tcp.base_mss = static_cast<uint16_t>(Number("tcp_base_mss", 1024));
  std::string algorithm;
  if (Open("tcp_congestion_control") >> algorithm && algorithm == "reno") {
    t.congestion = transport::CongestionAlgorithm::kNewReno;
  }
  return t;
}

}  // namespace sluice::test
