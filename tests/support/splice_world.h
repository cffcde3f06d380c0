// A relay whose two connections have become one, and part of it carried below the stack.
#ifndef SLUICE_TESTS_SUPPORT_SPLICE_WORLD_H_
#define SLUICE_TESTS_SUPPORT_SPLICE_WORLD_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "support/proxy_worlds.h"
#include "support/service_rig.h"

namespace sluice::test {

// A client that has had an answer, so that its relay is spliced.
struct SplicedWorld {
  explicit SplicedWorld(const ServiceRig::Options& options = {}, tables::ServiceConfig config = TcpProxyTo({8080}))
      : rig(options), server(rig, ServiceRig::Backend(8080), "s") {
    rig.Apply({std::move(config)});
    client = std::make_unique<TextClient>(rig, ServiceRig::Proxy(80), "x");
    EXPECT_TRUE(rig.RunUntil([&] { return client->got == "s:x"; }, Seconds(30)));
  }
  transport::Tcp& proxy() { return rig.link().host(1).tcp(); }
  uint32_t spliced() { return proxy().usage().splices; }
  bool Says(const std::string& text) {
    client->Say(text);
    const std::string all = client->got + text;
    return rig.RunUntil([&] { return client->got == all; }, Seconds(30));
  }

  ServiceRig rig;
  NamedServer server;
  std::unique_ptr<TextClient> client;
};

inline ServiceRig::Options Carrying(uint32_t after) {
  ServiceRig::Options options;
  options.link.hosts[1].carry_after = after;
  return options;
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_SPLICE_WORLD_H_
