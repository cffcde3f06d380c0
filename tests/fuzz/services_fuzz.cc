// Services at random (support/service_chaos.h), drawn by the fuzzer's bytes: nothing is left at the end.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "support/service_chaos.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice::test;
  if (size == 0 || size > 2000) return 0;
  ServiceRig::Options options;
  options.link.forward.bits_per_second = options.link.backward.bits_per_second = 1'000'000;
  if (data[0] & 1) options.link.forward.loss = options.link.backward.loss = 500;
  if (data[0] & 2) {
    options.limits = {.relays = 3, .udp_sessions = 2, .http_connections = 2,
                      .endpoint_connections = 2};
    options.link.hosts[1].config.tcp.limits.send_frames = 70;
    options.link.hosts[1].config.tcp.limits.receive_frames = 100;
    options.link.hosts[1].config.tcp.limits.connections = 20;
    options.link.hosts[1].config.udp.sockets = 5;
  }
  for (auto& host : options.link.hosts) host.frames = 2048;
  size_t at = 1;
  ServiceChaos chaos(options, [&](uint64_t bound) {
    uint64_t value = 0;
    for (uint64_t range = 1; range < bound && at < size; range <<= 8) value = value << 8 | data[at++];
    return value % bound;
  });
  while (at < size) chaos.Step();
  if (const std::string left = chaos.Finish(); !left.empty()) {
    std::fprintf(stderr, "left: %s\n", left.c_str());
    std::abort();
  }
  return 0;
}
