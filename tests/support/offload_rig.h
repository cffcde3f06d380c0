// The XDP program with a flow tier, packet by packet: BPF_PROG_TEST_RUN of the program that is
// attached to one end of a veth pair, and the flow tier's maps. Needs root.
#ifndef SLUICE_TESTS_SUPPORT_OFFLOAD_RIG_H_
#define SLUICE_TESTS_SUPPORT_OFFLOAD_RIG_H_

#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "io/af_xdp/interface_probe.h"
#include "io/af_xdp/offload_maps.h"
#include "io/af_xdp/xdp_program.h"
#include "support/net_sandbox.h"
#include "support/packet_builder.h"
#include "tables/offload.h"

namespace sluice::test {

class OffloadRig {
 public:
  static constexpr IfaceSlot kOut{1};

  // The interface has router_world.h's kLanMac. What goes to a worker is passed, as there is none.
  explicit OffloadRig(bool multi_buffer = false, uint32_t ids = 256, bool with_maps = true)
      : veth_("near", "far") {
    auto maps = io::af_xdp::OffloadMaps::Create(ids);
    Require(maps.ok(), std::string(maps.status().message()));
    maps_ = *std::move(maps);
    Require(maps_->SetDevice(kOut, IfIndex{if_nametoindex("near")}).ok(), "the device");
    auto info = io::af_xdp::ProbeInterface("near");
    Require(info.ok(), "near");
    auto program =
        io::af_xdp::XdpProgram::Attach(*info, {.mode = io::af_xdp::XdpMode::kNative,
                                               .multi_buffer = multi_buffer,
                                               .offload = with_maps ? maps_.get() : nullptr});
    Require(program.ok(), std::string(program.status().message()));
    program_ = *std::move(program);
    program_->SetEnabled(true);
    fd_ = bpf_prog_get_fd_by_id(program_->program_id());
    Require(fd_ >= 0, "the program");
    room_.resize(1 << 16);
  }
  ~OffloadRig() { close(fd_); }
  OffloadRig(const OffloadRig&) = delete;
  OffloadRig& operator=(const OffloadRig&) = delete;

  io::af_xdp::OffloadMaps& maps() { return *maps_; }
  io::af_xdp::XdpProgram& program() { return *program_; }
  tables::OffloadMemory memory() const { return maps_->memory(); }
  int fd() const { return fd_; }

  void Live(uint32_t id, uint32_t epoch) {
    for (uint32_t cpu = 0; cpu < memory().cpus; ++cpu) memory().cell(cpu, id).epoch = epoch;
  }
  void Apply(const std::vector<tables::OffloadChange>& changes) {
    const absl::Status status = maps_->Apply(changes);
    EXPECT_TRUE(status.ok()) << status;
  }

  struct Counted {
    uint64_t packets = 0;
    uint64_t bytes = 0;
    uint32_t completed = 0;
    bool operator==(const Counted&) const = default;
  };
  Counted Cell(uint32_t id) const {
    Counted sum;
    for (uint32_t cpu = 0; cpu < memory().cpus; ++cpu) {
      const sluice_offload_cell& cell = memory().cell(cpu, id);
      sum.packets += cell.packets;
      sum.bytes += cell.bytes;
      sum.completed += cell.completed;
    }
    return sum;
  }

  // What came out is in frame(); true when it was sent on.
  bool Forwards(const Bytes& frame, uint32_t repeat = 1) {
    bpf_test_run_opts opts{};
    opts.sz = sizeof opts;
    opts.data_in = frame.data();
    opts.data_size_in = static_cast<uint32_t>(frame.size());
    opts.data_out = room_.data();
    opts.data_size_out = static_cast<uint32_t>(room_.size());
    opts.repeat = static_cast<int>(repeat);
    const int error = bpf_prog_test_run_opts(fd_, &opts);
    Require(error == 0, "BPF_PROG_TEST_RUN");
    out_.assign(room_.begin(), room_.begin() + static_cast<long>(opts.data_size_out));
    nanoseconds_ = opts.duration;
    EXPECT_TRUE(opts.retval == XDP_REDIRECT || opts.retval == XDP_PASS) << opts.retval;
    return opts.retval == XDP_REDIRECT;
  }
  const Bytes& frame() const { return out_; }
  uint32_t nanoseconds() const { return nanoseconds_; }  // per repetition

 private:
  VethPair veth_;
  std::unique_ptr<io::af_xdp::OffloadMaps> maps_;
  std::unique_ptr<io::af_xdp::XdpProgram> program_;
  int fd_ = -1;
  Bytes room_;
  Bytes out_;
  uint32_t nanoseconds_ = 0;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_OFFLOAD_RIG_H_
