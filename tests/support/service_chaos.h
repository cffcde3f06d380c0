// Everything at once, at random: services of all kinds come, change and go while clients connect, talk,
// stall, finish and reset, and backends die and come back. What happens next is drawn by a function,
// which a seed or a fuzzer stands behind.
//
// Finish takes all services away and says what is left: nothing, in stacks, slabs, timers and counts.
#ifndef SLUICE_TESTS_SUPPORT_SERVICE_CHAOS_H_
#define SLUICE_TESTS_SUPPORT_SERVICE_CHAOS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/service_rig.h"
#include "support/udp_ends.h"

namespace sluice::test {

class ServiceChaos {
 public:
  // A number below the bound.
  using Draw = std::function<uint64_t(uint64_t bound)>;
  ServiceChaos(const ServiceRig::Options& options, Draw draw);

  void Step();
  std::string Finish();
  ServiceRig& rig() { return rig_; }
  uint64_t answered() const { return answered_; }  // clients who got something

 private:
  static constexpr uint16_t kPorts = 6;     // the services listen on 80 and on
  static constexpr uint16_t kBackends = 3;  // on 8080 and on
  bool Chance(uint64_t of) { return draw_(of) == 0; }
  void Configure();
  tables::ServiceConfig RandomService(uint16_t i);
  void NewClient();
  void Poke(TextClient& client);

  ServiceRig rig_;
  Draw draw_;
  std::vector<std::unique_ptr<NamedServer>> servers_;
  std::vector<std::unique_ptr<UdpServer>> udp_servers_;
  std::vector<std::unique_ptr<TextClient>> clients_;
  std::vector<std::unique_ptr<UdpClient>> udp_clients_;
  uint64_t answered_ = 0;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_SERVICE_CHAOS_H_
