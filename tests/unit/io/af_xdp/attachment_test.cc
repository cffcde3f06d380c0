#include "io/af_xdp/attachment.h"

#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <sys/wait.h>

#include <csignal>

#include "unit/io/af_xdp/port_fixture.h"

namespace sluice::io::af_xdp {
namespace {

using test::PacketBuilder;
using test::RawSocket;
using test::Shell;
using test::VethPair;
using ::testing::AllOf;
using ::testing::HasSubstr;

class AttachmentTest : public PortFixture {
 protected:
  // Of an attempt that must fail, and must leave all frames where they were.
  std::string ErrorOf(const InterfaceAttachment::Options& options) {
    const auto opened = InterfaceAttachment::Open(options, *arena_, pool_);
    EXPECT_FALSE(opened.ok());
    EXPECT_EQ(pool_.size(), kFrames);
    return std::string(opened.status().message());
  }
  bool KernelSees(RawSocket& watcher, const test::Bytes& frame) {
    return test::Eventually([&] {
      while (const auto seen = watcher.TryReceive()) {
        if (*seen == frame) return true;
      }
      return false;
    });
  }
};

// An XDP program of somebody else.
class ForeignXdp {
 public:
  explicit ForeignXdp(const std::string& interface) {
    bpf_insn code[2] = {};
    code[0].code = BPF_ALU64 | BPF_MOV | BPF_K;  // r0 = XDP_PASS
    code[0].imm = XDP_PASS;
    code[1].code = BPF_JMP | BPF_EXIT;
    program_ = bpf_prog_load(BPF_PROG_TYPE_XDP, "theirs", "GPL", code, 2, nullptr);
    test::Require(program_ >= 0, "load an XDP program");
    link_ = bpf_link_create(program_, static_cast<int>(if_nametoindex(interface.c_str())), BPF_XDP,
                            nullptr);
    test::Require(link_ >= 0, "attach an XDP program");
  }
  ~ForeignXdp() {
    close(link_);
    close(program_);
  }

 private:
  int program_ = -1;
  int link_ = -1;
};

TEST_F(AttachmentTest, DescribesItself) {
  VethPair veth("near", "far", "mtu 2000");
  Open(DefaultOptions("near"));
  const AttachmentDescription d = attachment_->Describe();
  EXPECT_EQ(d.interface.driver, "veth");
  EXPECT_TRUE(d.interface.is_virtual);
  EXPECT_TRUE(d.interface.up);
  EXPECT_TRUE(d.interface.carrier);
  EXPECT_EQ(d.interface.mtu, 2000u);
  EXPECT_EQ(d.interface.index.value, if_nametoindex("near"));
  EXPECT_EQ(ToString(d.interface.mac), kNearMac);
  EXPECT_EQ(d.mode, "native");
  EXPECT_EQ(d.native_refusal, "");
  EXPECT_FALSE(d.zero_copy);
  EXPECT_EQ(d.queues, 1);
  EXPECT_EQ(d.chunk_size, 2048u);
  EXPECT_NE(d.program_id, 0u);
  EXPECT_EQ(d.punt_device, "slu" + std::to_string(if_nametoindex("near")));
  EXPECT_NE(if_nametoindex(d.punt_device.c_str()), 0u);
  attachment_->Close(pool_);
  EXPECT_EQ(if_nametoindex(d.punt_device.c_str()), 0u) << "the punt device goes with it";
}

TEST_F(AttachmentTest, TheKernelGetsEverythingUntilEnabled) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  attachment_->SetEnabled(false);
  RawSocket peer("far");
  RawSocket watcher("near");
  const auto frame = NumberedFrame(1, 60);
  ASSERT_TRUE(peer.Send(frame));
  EXPECT_TRUE(KernelSees(watcher, frame));
  EXPECT_EQ((*attachment_->ReadXdpCounts())[SLUICE_XDP_DISABLED], 1u);
  attachment_->SetEnabled(true);
  ASSERT_TRUE(peer.Send(NumberedFrame(2, 60)));
  const auto packets = Receive(1);
  EXPECT_EQ(packets.size(), 1u);
  FreeAll(packets);
}

TEST_F(AttachmentTest, TakesTheGroupsItIsTold) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  attachment_->SetEnabled(true);
  RawSocket peer("far");
  RawSocket watcher("near");
  const auto to = [](const char* group) {
    return PacketBuilder().Ethernet("02:00:00:00:00:02", "01:00:5e:01:02:03")
        .Ipv4("10.0.0.2", group).Udp(1, 2).Payload(size_t{50}).Build();
  };
  const auto taken = [&](const char* group) {
    EXPECT_TRUE(peer.Send(to(group)));
    const auto packets = Receive(1);
    EXPECT_EQ(packets.size(), 1u) << group;
    FreeAll(packets);
  };
  const auto passed = [&](const char* group) {
    EXPECT_TRUE(peer.Send(to(group)));
    EXPECT_TRUE(KernelSees(watcher, to(group))) << group;
  };
  std::vector<IpAddress> groups = {Ipv4(239, 1, 2, 3), *ParseIpAddress("ff05::1:3")};
  passed("239.1.2.3");
  EXPECT_TRUE(attachment_->SetGroups(groups).empty());
  EXPECT_EQ(attachment_->groups(), 2u);
  taken("239.1.2.3");
  passed("239.1.2.4");
  groups[0] = Ipv4(239, 1, 2, 4);
  EXPECT_TRUE(attachment_->SetGroups(groups).empty());
  passed("239.1.2.3");
  taken("239.1.2.4");

  // As many as there is room for, in place of those before; of one more it is said that it has none.
  groups.clear();
  for (uint8_t i = 0; i <= SLUICE_MAX_GROUPS; ++i) groups.push_back(Ipv4(239, 1, 2, i));
  const auto problems = attachment_->SetGroups(groups);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].first, IpAddress(Ipv4(239, 1, 2, SLUICE_MAX_GROUPS)));
  EXPECT_THAT(std::string(problems[0].second.message()), HasSubstr("no place for more than 64"));
  EXPECT_EQ(attachment_->groups(), size_t{SLUICE_MAX_GROUPS});
  taken("239.1.2.63");
  passed("239.1.2.64");
  EXPECT_TRUE(attachment_->SetGroups({}).empty());
  passed("239.1.2.63");
}

TEST_F(AttachmentTest, FollowsAChangeOfTheMac) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  RawSocket peer("far");
  attachment_->SetOwnMac(*ParseMac("02:00:00:00:00:99"));
  ASSERT_TRUE(peer.Send(NumberedFrame(1, 60)));
  EXPECT_EQ((*attachment_->ReadXdpCounts())[SLUICE_XDP_OTHER_MAC], 1u);
  attachment_->SetOwnMac(*ParseMac(kNearMac));
  ASSERT_TRUE(peer.Send(NumberedFrame(2, 60)));
  EXPECT_EQ((*attachment_->ReadXdpCounts())[SLUICE_XDP_IPV4], 1u);
}

// The queue of a closed socket is busy for a moment.
TEST_F(AttachmentTest, OpensAgainAtOnce) {
  VethPair veth("near", "far");
  RawSocket peer("far");
  for (uint16_t i = 0; i < 5; ++i) {
    Open(DefaultOptions("near"));
    ASSERT_TRUE(peer.Send(NumberedFrame(i, 60)));
    const auto packets = Receive(1);
    ASSERT_EQ(packets.size(), 1u);
    FreeAll(packets);
    attachment_->Close(pool_);
    ASSERT_EQ(pool_.size(), kFrames);
  }
}

TEST_F(AttachmentTest, WaitsUntilAQueueIsReleased) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  attachment_->Close(pool_);
  EXPECT_TRUE(WaitUntilReleased("near", QueueId{0}));
  veth.Remove();
  EXPECT_TRUE(WaitUntilReleased("near", QueueId{0}));
}

// Killed, it leaves the interface to the kernel, and another one can take over.
TEST_F(AttachmentTest, KilledItLeavesTheInterfaceToTheKernel) {
  VethPair veth("near", "far");
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto opened = InterfaceAttachment::Open(DefaultOptions("near"), *arena_, pool_);
    if (opened.ok()) (*opened)->SetEnabled(true);
    const char ok = opened.ok() ? 'y' : 'n';
    static_cast<void>(!write(ready[1], &ok, 1));
    for (;;) pause();
  }
  char ok = 0;
  ASSERT_EQ(read(ready[0], &ok, 1), 1);
  close(ready[0]);
  close(ready[1]);
  EXPECT_EQ(ok, 'y');
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  Open(DefaultOptions("near"));
  RawSocket peer("far");
  ASSERT_TRUE(peer.Send(NumberedFrame(1, 60)));
  const auto packets = Receive(1);
  EXPECT_EQ(packets.size(), 1u);
  FreeAll(packets);
  attachment_->Close(pool_);
  RawSocket watcher("near");
  ASSERT_TRUE(peer.Send(NumberedFrame(2, 60)));
  EXPECT_TRUE(KernelSees(watcher, NumberedFrame(2, 60)));
}

TEST_F(AttachmentTest, AForeignProgramIsNamedAndKept) {
  VethPair veth("near", "far");
  ForeignXdp foreign("near");
  EXPECT_THAT(ErrorOf(DefaultOptions("near")),
              AllOf(HasSubstr("interface near: has an XDP program already (id "),
                    HasSubstr(", theirs)"), HasSubstr("ip link set dev near xdp off")));
  bpf_xdp_query_opts query{};
  query.sz = sizeof query;
  ASSERT_EQ(bpf_xdp_query(static_cast<int>(if_nametoindex("near")), 0, &query), 0);
  EXPECT_NE(query.prog_id, 0u);
}

TEST_F(AttachmentTest, AnotherSluiceIsNamed) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  const auto second = InterfaceAttachment::Open(DefaultOptions("near"), *arena_, pool_);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("is another sluice running?"));
}

TEST_F(AttachmentTest, AMissingInterfaceIsNamed) {
  EXPECT_EQ(ErrorOf(DefaultOptions("nowhere")),
            "interface nowhere: there is none of this name (see `ip link`)");
  EXPECT_THAT(ErrorOf(DefaultOptions("a-name-that-is-too-long")), HasSubstr("not a valid name"));
}

TEST_F(AttachmentTest, QueuesThatCannotBeSet) {
  VethPair veth("near", "far", "", 2);
  InterfaceAttachment::Options options = DefaultOptions("near");
  options.queues = 7;
  EXPECT_THAT(ErrorOf(options), AllOf(HasSubstr("interface near: cannot be set to 7 queues"),
                                      HasSubstr("can have 2")));
}

TEST_F(AttachmentTest, SetsTheNumberOfQueues) {
  VethPair veth("near", "far", "", 2);
  Shell("ethtool -L far rx 1 tx 1");
  InterfaceAttachment::Options options = DefaultOptions("near");
  options.queues = 1;
  Open(options);
  EXPECT_EQ(attachment_->queue_count(), 1u);
}

TEST_F(AttachmentTest, ZeroCopyThatTheDriverCannot) {
  VethPair veth("near", "far");
  InterfaceAttachment::Options options = DefaultOptions("near");
  options.zero_copy = Choice::kOn;
  EXPECT_THAT(ErrorOf(options), AllOf(HasSubstr("interface near, receive queue 0"),
                                      HasSubstr("use `zero_copy: off`")));
}

TEST_F(AttachmentTest, ZeroCopyInGenericMode) {
  VethPair veth("near", "far");
  InterfaceAttachment::Options options = DefaultOptions("near");
  options.zero_copy = Choice::kOn;
  options.mode = XdpMode::kGeneric;
  EXPECT_THAT(ErrorOf(options), HasSubstr("interface near: zero-copy needs native XDP"));
}

// A veth gives no NAPI to poll: the port notices and goes on without.
TEST_F(AttachmentTest, BusyPollingWhereThereIsNone) {
  VethPair veth("near", "far");
  InterfaceAttachment::Options options = DefaultOptions("near");
  options.busy_poll = Choice::kOn;
  Open(options);
  RawSocket peer("far");
  for (uint16_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(peer.Send(NumberedFrame(i, 60)));
    const auto packets = Receive(1);
    ASSERT_EQ(packets.size(), 1u);
    FreeAll(packets);
  }
}

// XDP would see tagged frames without their tags.
TEST_F(AttachmentTest, VlanOffloadIsOffWhileAttached) {
  VethPair veth("near", "far");
  ASSERT_TRUE(ProbeInterface("near")->vlan_offload);
  Open(DefaultOptions("near"));
  EXPECT_FALSE(ProbeInterface("near")->vlan_offload);
  attachment_->Close(pool_);
  attachment_.reset();
  EXPECT_TRUE(ProbeInterface("near")->vlan_offload);
}

TEST_F(AttachmentTest, GenericModeServesFramesOfAnySize) {
  VethPair veth("near", "far", "mtu 9000");
  InterfaceAttachment::Options options = DefaultOptions("near");
  options.mode = XdpMode::kGeneric;
  Open(options);
  EXPECT_EQ(attachment_->Describe().mode, "generic");
  RawSocket peer("far");
  for (uint16_t i = 0; i < 100; ++i) {
    const auto frame = NumberedFrame(i, 60 + i * 89);
    ASSERT_TRUE(peer.Send(frame));
    auto packets = Receive(1);
    ASSERT_EQ(packets.size(), 1u);
    EXPECT_EQ(BytesOf(*arena_, packets[0]), frame);
    ASSERT_EQ(port().TxBurst(packets, pool_), 1u);
    ASSERT_TRUE(FlushAll());
    const auto back = peer.Receive();
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(*back, frame);
  }
}

TEST_F(AttachmentTest, JumboMtuWithoutMultiBuffer) {
  VethPair veth("near", "far", "mtu 9000");
  const auto info = ProbeInterface("near");
  ASSERT_TRUE(info.ok());
  const auto native = XdpProgram::Attach(*info, {.mode = XdpMode::kNative, .multi_buffer = false});
  ASSERT_FALSE(native.ok());
  EXPECT_THAT(std::string(native.status().message()),
              AllOf(HasSubstr("interface near: XDP cannot be attached in native mode"),
                    HasSubstr("the MTU (9000")));
  const auto any = XdpProgram::Attach(*info, {.mode = XdpMode::kAuto, .multi_buffer = false});
  ASSERT_TRUE(any.ok()) << any.status();
  EXPECT_EQ((*any)->mode(), XdpMode::kGeneric);
  EXPECT_THAT((*any)->native_refusal(), HasSubstr("the MTU (9000"));
}

TEST_F(AttachmentTest, TheMtuMayGrowWhileAttached) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  if (!attachment_->Describe().multi_buffer) return;  // a kernel before 6.6
  Shell("ip link set dev near mtu 9000 && ip link set dev far mtu 9000");
  RawSocket peer("far");
  ASSERT_TRUE(peer.Send(NumberedFrame(1, 9000)));
  const auto packets = Receive(1);
  ASSERT_EQ(packets.size(), 1u);
  EXPECT_EQ(BytesOf(*arena_, packets[0]), NumberedFrame(1, 9000));
  FreeAll(packets);
}

TEST_F(AttachmentTest, FewFramesAreEnoughToBegin) {
  VethPair veth("near", "far");
  std::vector<packet::FrameIndex> kept;
  while (pool_.size() > 10) kept.push_back(pool_.Alloc());
  Open(DefaultOptions("near"));
  EXPECT_EQ(port().frames_in_fill(), 10u);
  for (const packet::FrameIndex frame : kept) pool_.Free(frame);
  port().Flush(pool_, counters_);
  EXPECT_EQ(port().frames_in_fill(), 1024u);
}

}  // namespace
}  // namespace sluice::io::af_xdp
