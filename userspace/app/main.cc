#include <iostream>
#include <string>
#include <vector>

#include "app/cli.h"
#include "app/run.h"

int main(int argc, char** argv) {
  return sluice::app::RunCli(std::vector<std::string>(argv + 1, argv + argc), std::cout, std::cerr,
                             &sluice::app::RunDaemon);
}
