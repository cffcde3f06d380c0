// A mirror of a namespace of the test's own.
#ifndef SLUICE_TESTS_UNIT_CONTROL_MIRROR_MIRROR_FIXTURE_H_
#define SLUICE_TESTS_UNIT_CONTROL_MIRROR_MIRROR_FIXTURE_H_

#include <gtest/gtest.h>
#include <poll.h>
#include <time.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "control/mirror/kernel_mirror.h"
#include "support/kernel_lookup.h"
#include "support/map_sink.h"
#include "support/network_namespace.h"

namespace sluice::control {

inline Nanos Clock() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Seconds(t.tv_sec) + Nanos(t.tv_nsec);
}

inline MirrorOptions QuietOptions() {
  MirrorOptions options;
  options.audit_interval = Nanos();  // nothing may be corrected behind the test's back
  return options;
}

class MirrorTest : public testing::Test {
 protected:
  void Start(const MirrorOptions& options = QuietOptions()) {
    auto mirror = KernelMirror::Open(
        options, sink_,
        [](IfIndex i) {
          return i.value < 64 ? IfaceSlot{static_cast<uint8_t>(i.value)} : IfaceSlot::None();
        },
        Clock());
    ASSERT_TRUE(mirror.ok()) << mirror.status();
    mirror_ = *std::move(mirror);
    const absl::Status loaded = mirror_->LoadAll(Clock, Clock() + Seconds(60));
    ASSERT_TRUE(loaded.ok()) << loaded;
  }

  // Until nothing waits: neither events nor dumps.
  void Settle() {
    const Nanos deadline = Clock() + Seconds(60);
    for (;;) {
      ASSERT_TRUE(mirror_->Run(Clock()).ok());
      pollfd polled[] = {{mirror_->fds()[0], POLLIN, 0}, {mirror_->fds()[1], POLLIN, 0}};
      const int timeout = mirror_->idle() ? 0 : 1;
      if (poll(polled, 2, timeout) == 0 && mirror_->idle()) return;
      ASSERT_LT(Clock(), deadline) << mirror_->stats().last_dump_error;
    }
  }

  // What the mirror leaves to the kernel is right in any case.
  bool Agrees(const IpAddress& address) {
    const std::string mirror = test::Describe(sink_.FindAny(address));
    const std::string kernel = kernel_.Find(address);
    if (mirror == "punt" || mirror == kernel) return true;
    // The kernel tells the siblings of an IPv6 route in a circle, from the selected one on.
    std::vector<std::string> paths = absl::StrSplit(mirror, ' ');
    for (size_t i = 2; i < paths.size() && !address.is_v4(); ++i) {
      std::rotate(paths.begin() + 1, paths.begin() + 2, paths.end());
      if (absl::StrJoin(paths, " ") == kernel) return true;
    }
    return false;
  }

  // Carrier changes and the like come with a delay of the kernel's own, so a difference gets a
  // while to vanish.
  void Compare(const std::vector<IpAddress>& addresses, const std::string& what) {
    for (const IpAddress& address : addresses) {
      const Nanos deadline = Clock() + Seconds(5);
      while (!Agrees(address) && Clock() < deadline) Settle();
      ASSERT_TRUE(Agrees(address))
          << ToString(address) << "\n  kernel: " << kernel_.Find(address)
          << "\n  mirror: " << test::Describe(sink_.FindAny(address)) << "\nafter\n"
          << what;
    }
  }

  void ExpectAuditFindsNothing(const std::string& what) {
    mirror_->RequestAudit(Clock());
    Settle();
    EXPECT_EQ(mirror_->stats().audit_route_corrections, 0u) << what;
    EXPECT_EQ(mirror_->divergence(), 0u);
  }

  // Runs the mirror until the condition holds.
  bool Eventually(const std::function<bool()>& condition) {
    const Nanos deadline = Clock() + Seconds(10);
    while (!condition() && Clock() < deadline) Settle();
    return condition();
  }

  test::NetworkNamespace namespace_;
  test::MapSink sink_;
  std::unique_ptr<KernelMirror> mirror_;
  test::KernelLookup kernel_;
};

// Veth pairs dN, pN with addresses on dN.
inline std::string SetUpLinks(int count) {
  std::string lines = "link set lo up\n";
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&lines, "link add d", i, " type veth peer name p", i, "\n");
    absl::StrAppend(&lines, "link set p", i, " up\nlink set d", i, " up\n");
    absl::StrAppend(&lines, "addr add 10.0.", i, ".1/24 dev d", i, "\n");
    absl::StrAppend(&lines, "addr add fd00:", i, "::1/64 dev d", i, " nodad\n");
  }
  return lines;
}

}  // namespace sluice::control

#endif  // SLUICE_TESTS_UNIT_CONTROL_MIRROR_MIRROR_FIXTURE_H_
