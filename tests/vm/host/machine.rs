//! Kinds of virtual machines.

/// What a scenario needs to run on. Scenarios of the same kind share a machine, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Added to the names of its files.
    pub suffix: &'static str,
    /// Memory of each NUMA node in MiB; each has a processor of its own where there are several.
    nodes: &'static [u32],
    /// Added to the kernel's command line.
    pub command_line: &'static str,
}

impl Machine {
    /// One node with 512 MiB, two processors.
    pub const PLAIN: Machine = Machine { suffix: "", nodes: &[512], command_line: "" };
    /// The second of two nodes is small, so that it alone can run out.
    pub const TWO_NODES: Machine = Machine { suffix: "-two-nodes", nodes: &[512, 192], command_line: "" };
    /// The kernel has PSI switched off.
    pub const WITHOUT_PSI: Machine = Machine { suffix: "-without-psi", command_line: "psi=0", ..Machine::PLAIN };
    /// Each kind, in the order in which they are booted.
    pub const ALL: [Machine; 3] = [Machine::PLAIN, Machine::TWO_NODES, Machine::WITHOUT_PSI];

    /// As QEMU's arguments.
    pub fn arguments(self) -> Vec<String> {
        let total: u32 = self.nodes.iter().sum();
        let mut arguments = vec!["-m".to_owned(), total.to_string(), "-smp".to_owned(), "2".to_owned()];
        if self.nodes.len() > 1 {
            for (at, mib) in self.nodes.iter().enumerate() {
                arguments.extend(["-object".to_owned(), format!("memory-backend-ram,id=node{at},size={mib}M")]);
                arguments.extend(["-numa".to_owned(), format!("node,nodeid={at},memdev=node{at},cpus={at}")]);
            }
        }
        arguments
    }
}
