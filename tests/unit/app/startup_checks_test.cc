#include "app/startup_checks.h"

#include <linux/capability.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::app {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t Bit(int capability) { return uint64_t{1} << capability; }
constexpr uint64_t kUnit = Bit(CAP_NET_ADMIN) | Bit(CAP_NET_RAW) | Bit(CAP_BPF) | Bit(CAP_PERFMON);

TEST(CheckCapabilities, TheUnitsSetSuffices) { EXPECT_TRUE(CheckCapabilities(kUnit).ok()); }

TEST(CheckCapabilities, NamesEachThatIsMissing) {
  const struct {
    int capability;
    const char* name;
  } all[] = {{CAP_NET_ADMIN, "CAP_NET_ADMIN"},
             {CAP_NET_RAW, "CAP_NET_RAW"},
             {CAP_BPF, "CAP_BPF"},
             {CAP_PERFMON, "CAP_PERFMON"}};
  for (const auto& missing : all) {
    const absl::Status status = CheckCapabilities(kUnit & ~Bit(missing.capability));
    const std::string said(status.message());
    EXPECT_FALSE(status.ok());
    for (const auto& other : all) {
      if (&other == &missing) {
        EXPECT_THAT(said, HasSubstr(other.name));
      } else {
        EXPECT_THAT(said, Not(HasSubstr(other.name)));
      }
    }
  }
}

TEST(CheckCapabilities, SysAdminStandsForBpfAndPerfmon) {
  EXPECT_TRUE(
      CheckCapabilities(Bit(CAP_NET_ADMIN) | Bit(CAP_NET_RAW) | Bit(CAP_SYS_ADMIN)).ok());
  EXPECT_FALSE(CheckCapabilities(Bit(CAP_SYS_ADMIN)).ok());
}

TEST(CheckKernel, AcceptsWhatIsNewEnough) {
  for (const char* release : {"6.1.0-56-amd64", "6.12.117+deb12-amd64", "6.18", "7.0.1"}) {
    EXPECT_TRUE(CheckKernel(release).ok()) << release;
  }
  for (const char* release : {"5.15.0", "6.0.12", "4.19", "unknown"}) {
    EXPECT_FALSE(CheckKernel(release).ok()) << release;
  }
}

}  // namespace
}  // namespace sluice::app
