#include "app/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>
#include <utility>

#include "app/check.h"
#include "app/explain.h"
#include "app/show.h"
#include "app/trace.h"
#include "app/version.h"

namespace sluice::app {
namespace {

// Everything that the command line can say.
struct Arguments {
  RunOptions run;
  std::string log_level = "info";
  std::string check_path;
  ShowOptions show;
  std::vector<std::string> words;  // of a filter or a description
  ExplainOptions explain;
  TraceOptions trace;
  double timeout_seconds = 30;
};

void DescribeShow(CLI::App& app, Arguments& a) {
  CLI::App* show = app.add_subcommand("show", "Show what the running sluice knows");
  show->add_option("what", a.show.what, WhatHelp())->type_name("WHAT")->required();
  show->add_option("filter", a.words,
                   "flows: only those, such as: ip saddr 10.0.0.0/8 tcp dport 443 status assured")
      ->type_name("FILTER");
  show->add_flag("--json", a.show.json, "JSON, for programs");
  show->add_flag("--all", a.show.all, "drops: also reasons that never occurred");
  show->add_option("--destination", a.show.destination, "routes: the one that ADDRESS would take")
      ->type_name("ADDRESS");
  show->add_option("--limit", a.show.limit, LimitHelp())->type_name("N");
  show->add_option("--sort", a.show.sort, "flows: the largest first, by bytes, packets or timeout")
      ->type_name("BY")
      ->check(CLI::IsMember({"bytes", "packets", "timeout"}));
  show->add_flag("--conntrack", a.show.conntrack, "flows: lines as conntrack -L prints them");
}

void DescribeExplain(CLI::App& app, Arguments& a) {
  CLI::App* explain = app.add_subcommand(
      "explain", "Say what would happen to a packet, stage by stage, without sending it");
  explain->add_option("--in", a.explain.interface, "where the packet arrives")
      ->type_name("INTERFACE")
      ->required();
  explain
      ->add_option("packet", a.words,
                   "in nft's words: ip saddr 10.0.0.5 ip daddr 1.1.1.1 tcp dport 443 tcp flags syn; "
                   "headers: ether ip ip6 tcp udp sctp icmp icmpv6, and payload size, meta l4proto")
      ->type_name("PACKET");
  explain->add_option("--hex", a.explain.hex, "the frame, from the Ethernet header on")
      ->type_name("BYTES");
  explain->add_option("--pcap", a.explain.pcap, "a packet of a file that tcpdump has written")
      ->type_name("FILE");
  explain->add_option("--packet", a.explain.packet, "--pcap: which one")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  explain->add_flag("--json", a.explain.json, "JSON, for programs");
}

void DescribeTrace(CLI::App& app, Arguments& a) {
  CLI::App* trace =
      app.add_subcommand("trace", "Show live packets and what becomes of them, until interrupted");
  trace->add_option("filter", a.words, "in pcap's syntax: host 10.0.0.5 and tcp port 443")
      ->type_name("FILTER");
  trace->add_option("--limit", a.trace.limit, "end after N packets")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  trace->add_flag("--json", a.trace.json, "a JSON object per line, for programs");
}

void Describe(CLI::App& app, Arguments& a) {
  app.set_version_flag("--version", std::string("sluice ") + kVersion);
  app.add_option("--control", a.run.control_path, "Unix socket of the control API")
      ->type_name("PATH")
      ->capture_default_str();
  app.require_subcommand(1);
  app.fallthrough();  // --control may also follow the subcommand

  CLI::App* run = app.add_subcommand("run", "Route packets, in the foreground, until SIGTERM");
  run->add_option("--config", a.run.config_path, "configuration file")
      ->type_name("FILE")
      ->required();
  run->add_option("--log-level", a.log_level, "debug, info, warning, error or off")
      ->type_name("LEVEL")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();

  CLI::App* check = app.add_subcommand("check", "Validate a configuration, touching nothing");
  check->add_option("--config", a.check_path, "configuration file")->type_name("FILE")->required();

  CLI::App* wait = app.add_subcommand("wait-ready", "Wait until packets are being forwarded");
  wait->add_option("--timeout", a.timeout_seconds, "how long")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();

  DescribeShow(app, a);
  DescribeExplain(app, a);
  DescribeTrace(app, a);
}

std::string Joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

int Dispatch(const CLI::App& app, Arguments& a, std::ostream& out, std::ostream& err,
             const std::function<int(const RunOptions&)>& run) {
  if (app.got_subcommand("run")) {
    a.run.log_level = ParseLogLevel(a.log_level).value_or(LogLevel::kInfo);
    return run(a.run);
  }
  if (app.got_subcommand("check")) return Check(a.check_path, out, err);
  if (app.got_subcommand("wait-ready")) {
    return WaitReady(a.run.control_path, a.timeout_seconds, err);
  }
  if (app.got_subcommand("explain")) {
    a.explain.control_path = a.run.control_path;
    a.explain.words = Joined(a.words);
    return Explain(a.explain, out, err);
  }
  if (app.got_subcommand("trace")) {
    a.trace.control_path = a.run.control_path;
    a.trace.filter = Joined(a.words);
    return Trace(a.trace, out, err);
  }
  a.show.control_path = a.run.control_path;
  a.show.filter = Joined(a.words);
  return Show(a.show, out, err);
}

}  // namespace

int RunCli(std::vector<std::string> arguments, std::ostream& out, std::ostream& err,
           const std::function<int(const RunOptions&)>& run) {
  CLI::App app("Sluice: an XDP router for Linux that Linux configures", "sluice");
  Arguments a;
  Describe(app, a);
  try {
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& e) {  // also how CLI11 asks for help to be printed
    return app.exit(e, out, err) == 0 ? kExitOk : kExitUsage;
  }
  const int code = Dispatch(app, a, out, err, run);
  out.flush();
  if (!out.good() && code == kExitOk) {
    err << "sluice: cannot write the output\n";
    return kExitFailed;
  }
  return code;
}

}  // namespace sluice::app
