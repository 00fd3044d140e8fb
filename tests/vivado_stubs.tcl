# Stands in for Vivado: records every command and makes the files that a run leaves. Sourced before build.tcl.
# Environment: RECORD (file for the commands), SLACK, HOLD (ns), FAIL (missing_ip, unfinished or empty).
set record [open $::env(RECORD) w]
proc note {args} { puts $::record $args; flush $::record }
# Commands of Vivado (UG835) that leave nothing behind here. A name that is not Vivado's is an error, as there.
set commands {
    add_files assign_bd_address connect_bd_intf_net connect_bd_net create_bd_cell create_bd_design create_project current_fileset
    current_project get_bd_addr_segs get_bd_addr_spaces make_bd_intf_pins_external open_run report_timing report_timing_summary
    save_bd_design set_property update_compile_order update_ip_catalog validate_bd_design wait_on_run
}
proc unknown {name args} {
    if {$name ni $::commands} { error "invalid command name \"$name\"" }
    note $name {*}$args
    return ""
}
proc get_ipdefs {args} {
    note get_ipdefs {*}$args
    if {$::env(FAIL) eq "missing_ip"} { return {} }
    regexp {=~ ([\w.]+:\w+:\w+):} $args - name
    return [list $name:1.9 $name:1.10]
}
proc get_bd_pins {name} { return pin:$name }
proc get_bd_intf_pins {name} { return interface:$name }
proc get_files {name} { return $name }
proc version {args} { return 2024.1 }
proc make_wrapper {args} { note make_wrapper {*}$args; return system_wrapper.v }
proc get_runs {name} { return $name }
proc get_timing_paths {args} { return [lindex $args end] }
proc get_property {name of} {
    switch $name {
        PROGRESS { return [expr {$::env(FAIL) eq "unfinished" ? "42%" : "100%"}] }
        STATUS { return "place_design ERROR" }
        SLACK { return [expr {$of eq "-hold" ? $::env(HOLD) : $::env(SLACK)}] }
        STARTPOINT_PIN { return bitsmith/u_top/u_core/a_reg/C }
        ENDPOINT_PIN { return bitsmith/u_top/u_core/b_reg/D }
    }
}
proc launch_runs {args} {
    puts "a line of the tool"
    note launch_runs {*}$args
    file mkdir project/bitsmith.runs/impl_1 project/bitsmith.gen/sources_1/bd/system/hw_handoff
    close [open project/bitsmith.runs/impl_1/system_wrapper.bit w]
    close [open project/bitsmith.gen/sources_1/bd/system/hw_handoff/system.hwh w]
}
proc report_utilization {args} {
    note report_utilization {*}$args
    set out [open [lindex $args end] w]
    puts $out "| Site Type              |  Used | Fixed | Prohibited | Available | Util% |"
    puts $out "| Slice LUTs*            | 31234 |     0 |          0 |     53200 | 58.71 |"
    puts $out "| Slice Registers        | 28000 |     0 |          0 |    106400 | 26.32 |"
    puts $out "| Block RAM Tile         |  61.5 |     0 |          0 |       140 | 43.93 |"
    puts $out "| DSPs                   |    64 |     0 |          0 |       220 | 29.09 |"
    close $out
}
