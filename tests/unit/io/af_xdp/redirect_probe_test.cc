// On real veth pairs whose ends are in two network namespaces: what the probe says as the other end
// changes, by each of its ways.
#include "io/af_xdp/redirect_probe.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <iterator>
#include <string>

#include "io/af_xdp/kernel_features.h"
#include "io/af_xdp/netdev_features.h"
#include "support/net_sandbox.h"

namespace sluice::io::af_xdp {
namespace {

using test::Eventually;
using test::Shell;

constexpr char kFarNamespace[] = "offbpf-probe";
const std::string kFar = std::string("ip netns exec ") + kFarNamespace + " ";

class RedirectProbeTest : public ::testing::TestWithParam<RedirectMethod> {
 protected:
  void SetUp() override {
    if (GetParam() == RedirectMethod::kFeatures && RunningKernel() < KernelVersion{6, 3}) {
      features_known_ = false;
    }
    test::EnterSandbox();
    static_cast<void>(
        std::system((std::string("ip netns del ") + kFarNamespace + " 2>/dev/null").c_str()));
    Shell(std::string("ip netns add ") + kFarNamespace);
    // Receive offloads are off, as with most pairs there are.
    Shell(std::string("ip link add near address 02:00:00:00:00:01 type veth peer name far ") +
          "address 02:00:00:00:00:02 netns " + kFarNamespace);
    Shell("ip link set dev near up");
    Shell(kFar + "ip link set dev far up");
    EXPECT_TRUE(Eventually([] { return ProbeInterface("near")->carrier; }));
  }
  void TearDown() override {
    static_cast<void>(std::system("ip link del dev near 2>/dev/null"));
    Shell(std::string("ip netns del ") + kFarNamespace);
  }

  RedirectTarget Ask() {
    const RedirectAnswer answer = ProbeRedirect(*ProbeInterface("near"), GetParam());
    EXPECT_EQ(answer.advice.empty(), answer.target == RedirectTarget::kYes) << answer.advice;
    advice_ = answer.advice;
    return answer.target;
  }
  // On a kernel that cannot say, it says so.
  void Expect(RedirectTarget target) {
    EXPECT_EQ(Ask(), features_known_ ? target : RedirectTarget::kUnknown) << advice_;
  }

  static void AttachFar(int program) {
    const int here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    const int there =
        open((std::string("/run/netns/") + kFarNamespace).c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(setns(there, CLONE_NEWNET), 0);
    const int index = static_cast<int>(if_nametoindex("far"));
    EXPECT_EQ(bpf_xdp_attach(index, program, XDP_FLAGS_DRV_MODE, nullptr), 0);
    ASSERT_EQ(setns(here, CLONE_NEWNET), 0);
    close(here);
    close(there);
  }

  bool features_known_ = true;
  std::string advice_;
};

INSTANTIATE_TEST_SUITE_P(By, RedirectProbeTest,
                         ::testing::Values(RedirectMethod::kBest, RedirectMethod::kFeatures,
                                           RedirectMethod::kFrame),
                         [](const auto& p) {
                           return p.param == RedirectMethod::kBest       ? "best"
                                  : p.param == RedirectMethod::kFeatures ? "features"
                                                                         : "frame";
                         });

TEST_P(RedirectProbeTest, FollowsGroAtTheOtherEnd) {
  Expect(RedirectTarget::kNoPeerNapi);
  EXPECT_EQ(advice_.find("ethtool -K IF gro on") != std::string::npos, features_known_);
  Shell(kFar + "ethtool -K far gro on");
  Expect(RedirectTarget::kYes);
  Shell(kFar + "ethtool -K far gro off");
  Expect(RedirectTarget::kNoPeerNapi);
}

TEST_P(RedirectProbeTest, FollowsAnXdpProgramAtTheOtherEnd) {
  // r0 = XDP_PASS; exit
  const bpf_insn pass[] = {
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = XDP_PASS},
      {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
  const int program =
      bpf_prog_load(BPF_PROG_TYPE_XDP, "pass", "GPL", pass, std::size(pass), nullptr);
  ASSERT_GE(program, 0);
  AttachFar(program);
  Expect(RedirectTarget::kYes);
  AttachFar(-1);
  Expect(RedirectTarget::kNoPeerNapi);
  close(program);
}

TEST_P(RedirectProbeTest, OwnGroMakesNoDifference) {
  Shell("ethtool -K near gro on");
  Expect(RedirectTarget::kNoPeerNapi);
}

TEST_P(RedirectProbeTest, DownIsUnknown) {
  Shell(kFar + "ethtool -K far gro on");
  Shell(kFar + "ip link set dev far down");
  EXPECT_TRUE(Eventually([] { return !ProbeInterface("near")->carrier; }));
  EXPECT_EQ(Ask(), RedirectTarget::kUnknown);
  EXPECT_NE(advice_.find("the link is down"), std::string::npos);
  Shell(kFar + "ip link set dev far up");
  EXPECT_TRUE(Eventually([] { return ProbeInterface("near")->carrier; }));
  Expect(RedirectTarget::kYes);
}

TEST_P(RedirectProbeTest, OtherDrivers) {
  const RedirectTarget said = ProbeRedirect(*ProbeInterface("lo"), GetParam()).target;
  const bool told = GetParam() != RedirectMethod::kFrame && RunningKernel() >= KernelVersion{6, 3};
  EXPECT_EQ(said, told ? RedirectTarget::kUnsupported : RedirectTarget::kUnknown);
}

// No frame goes out when netlink answers.
TEST(RedirectProbe, LeavesNoTraceWhereTheKernelTells) {
  test::VethPair pair("near", "far");
  if (!ReadXdpFeatures(ProbeInterface("near")->index)) {
    EXPECT_LT(RunningKernel(), (KernelVersion{6, 3}));
    return;
  }
  Shell("ethtool -K far gro on");
  test::RawSocket far("far");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(ProbeRedirect(*ProbeInterface("near")).target, RedirectTarget::kYes);
  }
  EXPECT_FALSE(far.TryReceive().has_value());
  EXPECT_EQ(ProbeRedirect(*ProbeInterface("near"), RedirectMethod::kFrame).target,
            RedirectTarget::kYes);
  const auto frame = far.Receive();
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ((*frame)[12], 0x88);
}

TEST(RedirectProbe, FeaturesOfWhatIsNotThere) {
  test::EnterSandbox();
  EXPECT_FALSE(ReadXdpFeatures(IfIndex{123456}).has_value());
}

}  // namespace
}  // namespace sluice::io::af_xdp
