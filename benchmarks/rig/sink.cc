// Attaches the counting program to the far end and answers "read" with what it saw, per core.
//   rig_sink INTERFACE [ADDRESS]
// ADDRESS is the one that NAT is to give to what it lets out.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>

#include <cerrno>
#include <cstring>
#include <sstream>
#include <vector>

#include "command_loop.h"
#include "rig_abi.h"
#include "sink.skel.h"

namespace sluice::rig {
namespace {

std::string ReadCounts(int map_fd, int cpus) {
  std::vector<rig_sink_count> counts(cpus);
  const uint32_t key = 0;
  if (bpf_map_lookup_elem(map_fd, &key, counts.data()) != 0) Fail("cannot read the sink's map");
  rig_sink_count total = {};
  std::ostringstream per_cpu;
  for (const rig_sink_count& count : counts) {
    total.forwarded += count.forwarded;
    total.untouched += count.untouched;
    total.other += count.other;
    total.translated += count.translated;
    total.bytes += count.bytes;
    per_cpu << (per_cpu.tellp() > 0 ? "," : "") << count.forwarded + count.untouched + count.other;
  }
  std::ostringstream out;
  out << "{\"time_ns\":" << MonotonicNanos() << ",\"forwarded\":" << total.forwarded
      << ",\"untouched\":" << total.untouched << ",\"other\":" << total.other
      << ",\"translated\":" << total.translated << ",\"bytes\":" << total.bytes << ",\"per_cpu\":[" << per_cpu.str() << "]}";
  return out.str();
}

int Main(int argc, char** argv) {
  if (argc != 2 && argc != 3) Fail("usage: rig_sink INTERFACE [ADDRESS]");
  const unsigned ifindex = if_nametoindex(argv[1]);
  if (ifindex == 0) Fail(std::string("no interface ") + argv[1]);
  sink_bpf* skeleton = sink_bpf__open();
  if (skeleton == nullptr) Fail("cannot open the sink's program");
  if (argc == 3) {
    in_addr address = {};
    if (inet_pton(AF_INET, argv[2], &address) != 1) Fail(std::string("bad address ") + argv[2]);
    skeleton->rodata->translated_source = address.s_addr;
  }
  if (sink_bpf__load(skeleton) != 0) Fail("cannot load the sink's program");
  bpf_link* link = bpf_program__attach_xdp(skeleton->progs.count, int(ifindex));
  if (link == nullptr) Fail(std::string("cannot attach the sink: ") + std::strerror(errno));
  const int cpus = libbpf_num_possible_cpus();
  Say("{\"ready\":true}");
  RunCommands([&](const std::string& line) {
    if (line != "read") return false;
    Say(ReadCounts(bpf_map__fd(skeleton->maps.counts), cpus));
    return true;
  });
  bpf_link__destroy(link);
  sink_bpf__destroy(skeleton);
  return 0;
}

}  // namespace
}  // namespace sluice::rig

int main(int argc, char** argv) { return sluice::rig::Main(argc, argv); }
