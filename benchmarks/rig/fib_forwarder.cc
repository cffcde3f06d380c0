// Attaches the forwarding program fib_forward.bpf.c to two interfaces, in native mode, until its
// input ends or a signal comes.
//   fib_forwarder LEFT RIGHT
// "read" answers with what the program has redirected and what it has left to the kernel. The
// interfaces' peers must have a NAPI (an XDP program or GRO), or they take no redirected frame.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "command_loop.h"
#include "fib_forward.skel.h"

namespace sluice::rig {
namespace {

int Attach(const bpf_program* program, const std::string& name) {
  const unsigned ifindex = if_nametoindex(name.c_str());
  if (ifindex == 0) Fail("no interface " + name);
  LIBBPF_OPTS(bpf_link_create_opts, options, .flags = XDP_FLAGS_DRV_MODE);
  const int link =
      bpf_link_create(bpf_program__fd(program), static_cast<int>(ifindex), BPF_XDP, &options);
  if (link < 0) Fail("cannot attach to " + name + ": " + std::strerror(-link));
  return link;
}

int Main(int argc, char** argv) {
  if (argc != 3) Fail("usage: fib_forwarder LEFT RIGHT");
  // Ends the process and with it the links; nothing else is to be undone.
  std::signal(SIGTERM, [](int) { std::_Exit(0); });
  fib_forward_bpf* skeleton = fib_forward_bpf__open_and_load();
  if (skeleton == nullptr) Fail("cannot load the forwarding program");
  for (int i = 1; i <= 2; ++i) Attach(skeleton->progs.fib_forward, argv[i]);
  Say("{\"ready\":true}");
  RunCommands([&](const std::string& line) {
    if (line != "read") return false;
    const volatile auto& counts = *skeleton->bss;
    Say("{\"time_ns\":" + std::to_string(MonotonicNanos()) + ",\"redirected\":" +
        std::to_string(counts.redirected) + ",\"passed\":" + std::to_string(counts.passed) + "}");
    return true;
  });
  return 0;
}

}  // namespace
}  // namespace sluice::rig

int main(int argc, char** argv) { return sluice::rig::Main(argc, argv); }
