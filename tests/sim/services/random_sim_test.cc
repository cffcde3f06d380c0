// Everything at once, at random (support/service_chaos.h): nothing is left at the end.
#include <gtest/gtest.h>

#include "support/environment.h"
#include "support/service_chaos.h"

namespace sluice::test {
namespace {

TEST(ServicesAtRandom, NothingIsLeft) {
  const uint64_t seeds = FromEnvironment("SLUICE_SERVICE_SEEDS", 30);
  uint64_t answered = 0;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    ServiceRig::Options options;
    options.seed = options.link.seed = seed;
    // Chargen fills whatever link there is.
    options.link.forward.bits_per_second = options.link.backward.bits_per_second = 5'000'000;
    if (seed % 3 == 1) {
      options.link.forward.loss = options.link.backward.loss = 300;
      options.link.forward.reorder = options.link.backward.duplicate = 300;
    }
    // Part of what relays pass on does not come up to the stack.
    if (seed % 2 == 1) options.link.hosts[1].carry_after = static_cast<uint32_t>(1 + seed % 7);
    if (seed % 3 == 2) {  // short of everything
      options.limits = {.relays = 5, .udp_sessions = 3, .http_connections = 3,
                        .endpoint_connections = 3};
      options.link.hosts[1].config.tcp.limits.send_frames = 100;
      options.link.hosts[1].config.tcp.limits.receive_frames = 100;
      options.link.hosts[1].config.tcp.limits.connections = 30;
      options.link.hosts[1].config.tcp.limits.listeners = 5;
      options.link.hosts[1].config.udp.sockets = 6;
    }
    Rng rng(seed);
    ServiceChaos chaos(options, [&rng](uint64_t bound) { return rng.Below(bound); });
    for (int i = 0; i < 1500; ++i) chaos.Step();
    EXPECT_EQ(chaos.Finish(), "") << "seed " << seed;
    answered += chaos.answered();
  }
  EXPECT_GT(answered, 30 * seeds);
}

}  // namespace
}  // namespace sluice::test
