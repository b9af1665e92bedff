# SPDX-License-Identifier: GPL-2.0-only
# What the statements of an EasySIF module mean in Tcl: under Environment Modules, and under Lmod, which has the
# commands of a Tcl module carried out in Lua. It starts no process and reads a few files: the site file of the prefix
# and what the guards ask for.

array set es_state {binds {} order {} pushed {} targets {} forced {} site {}}
set es_needed_path {}
set es_needed_libraries {}

proc es_is_lmod {} { return [expr {[info exists ::ModuleTool] && $::ModuleTool eq {Lmod}}] }

# load, unload or show, whatever the tool calls it; what else it does with a module is none of our business.
proc es_mode {} { return [es_given {load load unload unload remove unload display show} [module-info mode]] }

proc es_given {values key} { if {[dict exists $values $key]} { return [dict get $values $key] } }

# Environment Modules leaves what it has unset empty for other modules, and only its own command knows.
proc es_is_set {name} {
    if {[es_is_lmod] || [es_mode] eq {show}} { return [info exists ::env($name)] }
    return [expr {[info exists ::env($name)] && [getenv $name {is not set}] eq $::env($name)}]
}

proc es_env {name} { if {[es_is_set $name]} { return $::env($name) } }

# A module that takes the place of another one of its family Lmod loads twice: while that one is still there, and when
# it has unloaded both. The first time nothing is set, made or said.
proc es_comes_again {} {
    set former [es_env LMOD_FAMILY_EASYSIF_ENVIRONMENT]
    return [expr {[es_is_lmod] && [es_mode] eq {load} && $former ne {} && [is-loaded $former] &&
                  $former ne [file dirname [module-info name]]}]
}

# Tcl takes a tilde at the beginning for a home directory.
proc es_plain {path} { return [regsub {^~} $path {./~}] }

proc es_exists {path} { return [file exists [es_plain $path]] }
proc es_is_directory {path} { return [file isdirectory [es_plain $path]] }
proc es_has_image {path size} {
    if {![es_exists $path]} { return 0 }
    file stat [es_plain $path] image
    file stat [file dirname [es_plain $path]] store
    return [expr {$image(size) == $size && !(($image(mode) | $store(mode)) & 2)}]
}
proc es_filled {value} { return [expr {$value ne {}}] }
proc es_bindable {path} { return [regexp {^[^:,^\n]*[^:,^\n\\\s]$} $path] }
proc es_is_absolute {path} { return [string match /* $path] }
proc es_is_same {first second} { return [expr {$first eq $second}] }
proc es_is_loading {} { return [expr {[es_mode] eq {load}}] }

proc es_record {name value} { return $name=[string map {% %25 ; %3B} $value] }

# Return a list of name and value of what EASYSIF_SET or EASYSIF_KEPT records.
proc es_recorded {variable} {
    set found {}
    foreach pair [split [es_env $variable] {;}] {
        if {[regexp {^([A-Za-z_][A-Za-z0-9_]*)=(.*)$} $pair all name value]} {
            dict set found $name [string map {%25 % %3B ;} $value]
        }
    }
    return $found
}

# What another module of ours has set counts as unset: it is taken away when this one is loaded.
proc es_is_unset {name} {
    return [expr {![es_is_set $name] || [es_record $name [es_env $name]] in [split [es_env EASYSIF_SET] {;}]}]
}

proc es_readable {path} {
    set path [es_plain $path]
    return [expr {[file readable $path] && (![file isdirectory $path] || [file executable $path])}]
}

proc es_writable {path} { return [expr {[es_exists $path] && [file writable [es_plain $path]]}] }

# Written by a group, and not by everybody as directories for temporary files are.
proc es_shared {path} { return [expr {([es_permissions $path] & 0o22) == 0o20}] }

proc es_permissions {path} {
    if {[catch {file stat [es_plain $path] found}]} { return 0 }
    return [expr {$found(mode) & 0o7777}]
}

proc es_mine {path} {
    if {[catch {file stat [es_plain $path] owner; set status [open /proc/self/status]}]} { return 0 }
    set text [read $status]
    close $status
    regexp {Uid:\s+\d+\s+(\d+)} $text all user
    regexp {Gid:\s+\d+\s+(\d+)} $text all group
    regexp {Groups:([^\n]*)} $text all groups
    if {$owner(uid) == $user} { return 1 }
    return [expr {$user != 0 && [es_shared $path] && $owner(gid) in [concat $group $groups]}]
}

# The site file is data that `easysif site apply` wrote; the installation's own copy serves where it cannot be read,
# and while the installation is tested, before the prefix learns what the site says now.
proc es_read_site {prefix root} {
    set own $root/easysif/site.tcl
    foreach path [list $prefix/easysif/site.tcl $own] {
        if {[file exists $root/easysif/untested]} { set path $own }
        if {![catch {set file [open $path]}]} {
            set values [read $file]
            close $file
            if {![catch {dict get $values settings}]} {
                set ::es_state(site) $values
                return
            }
        }
    }
}

# Only the place of overlays is a template: $USER, $HOME or any other variable; unset ones make it empty.
proc es_setting {name} {
    set rest [es_given [es_given $::es_state(site) settings] $name]
    if {$name ne {overlays}} { return $rest }
    set value {}
    while {[regexp -indices {\$(\{?)([A-Za-z_][A-Za-z0-9_]*)(\}?)} $rest all open variable close]} {
        set found [es_env [string range $rest {*}$variable]]
        if {[string range $rest {*}$variable] eq {USER} && ![es_is_set USER]} {
            if {[es_is_set LOGNAME]} { set found [es_env LOGNAME] } else { set found [file tail [es_env HOME]] }
        }
        if {$found eq {}} { return {} }
        append value [string range $rest 0 [lindex $all 0]-1] $found
        if {[string range $rest {*}$open] eq {}} { append value [string range $rest {*}$close] }
        set rest [string range $rest [lindex $all 1]+1 end]
    }
    return $value$rest
}

# Of the superblock: "hsqs", the compressor at offset 20, as 16-bit word, and the length in bytes_used, the 64-bit word
# at offset 40; both little-endian.
proc es_look_at_squashfs {path} {
    if {![es_exists $path]} { return {} }
    if {![file isfile [es_plain $path]] || [catch {set file [open [es_plain $path] rb]}]} { return damaged }
    set head [read $file 48]
    close $file
    if {[binary scan $head a4x16sux18wu magic number used] != 3 || $magic ne {hsqs}} { return damaged }
    if {$used < 96 || [file size [es_plain $path]] < $used} { return damaged }
    set name [lindex {{} gzip lzma lzo xz lz4 zstd} $number]
    if {$name ne {} && $name in [split [es_setting refused_compressors]]} { return $name }
    return whole
}

proc es_read_word {path word} {
    if {![file isfile [es_plain $path]] || [catch {set file [open [es_plain $path]]}]} { return {} }
    set text [read $file 4096]
    close $file
    foreach line [split $text \n] {
        if {[string equal -length [string length "$word "] $line "$word "]} {
            return [string range $line [string length "$word "] end]
        }
    }
    return {}
}

proc es_values_of {need} {
    if {$need eq {}} { return $::es_state(site) }
    return [es_given [es_given $::es_state(site) needs] $need]
}

# The Tcl that Lmod has built in takes what it reads for Latin-1 and gives it to Lmod as UTF-8.
proc es_out {value} {
    if {[es_is_lmod] && [string match */tcl2lua.tcl [info nameofexecutable]]} {
        return [encoding convertfrom utf-8 $value]
    }
    return $value
}

# Lmod puts it into brackets of Lua, which it must not close.
proc es_say {lines} { return [es_out [string map {]=== {] ===}} [join $lines \n]]] }

proc es_fail {args} { if {[es_mode] eq {load}} { error [es_say $args] {} MODULES_ERR_GLOBAL } }

proc es_warn {args} {
    if {[es_mode] ne {load} || [es_comes_again]} { return }
    if {[es_is_lmod]} { set args [list {} {} {*}$args] }
    puts stderr [es_say $args]
}

proc es_tell {first args} { es_warn "note: $first" {*}$args }

# What a directory grants to its group and to others, as in its mode; of one that all may write, nobody may.
proc es_granted {path} {
    set bits [expr {[es_permissions $path] & 0o77}]
    return [expr {$bits & 2 ? $bits & ~0o22 : $bits}]
}

proc es_make_directory {path like} {
    if {[es_mode] ne {load} || [es_comes_again] || [es_is_directory $path]} { return }
    set missing {}
    for {set above $path} {![es_is_directory $above]} {set above [file dirname $above]} { lappend missing $above }
    if {[es_shared $above]} { set like $above }
    foreach directory [lreverse $missing] {
        if {[catch {file mkdir $directory}]} { return }
        set bits [expr {[es_permissions $directory] & 0o7000 | 0o700 | [es_granted $like]}]
        file attributes $directory -permissions [format %05o $bits]
    }
}

# What a tool would not hand on as it is: both give a newline to the shell, which runs what follows it; Lmod drops blanks
# at the end, fails at a tab or a carriage return, and breaks what is beyond the 65,536 letters that its Tcl knows;
# Environment Modules lets the shell put a home directory for a tilde.
proc es_is_carried {value} {
    if {[es_is_lmod]} { return [expr {![regexp {[\n\r\t\u00f0-\u00f4]| $} $value]}] }
    return [expr {![regexp {\n|(^|:)~} $value]}]
}

# No such value is set, nor one that it replaces, and a variable in which the user has one is left alone, as it could
# not be given back.
proc es_push {name value} {
    if {![es_is_carried [es_env $name]]} { return }
    if {![es_is_carried $value]} {
        set ::es_state(order) [lsearch -all -inline -exact -not $::es_state(order) $name]
        dict unset ::es_state(pushed) $name
        return
    }
    if {$name ni $::es_state(order)} { lappend ::es_state(order) $name }
    dict set ::es_state(pushed) $name $value
}

proc es_depend_on {module} { depends-on $module }
proc es_set {name value} { es_assign $name $value 0 {} }
proc es_family {name} { family $name }

proc es_inside {name value} {
    es_push SINGULARITYENV_$name $value
    es_push APPTAINERENV_$name $value
}

proc es_joined {one other} { return [join [lsearch -all -inline -not [list $one $other] {}] :] }

# What the user changes afterwards is theirs in this shell; wrappers set what is forced again.
proc es_inside_each {need} {
    if {$need eq {}} {
        foreach switch [split [es_setting isolation]] {
            es_push SINGULARITY_$switch 1
            es_push APPTAINER_$switch 1
        }
    }
    set values [es_values_of $need]
    set ::es_needed_path [es_joined $::es_needed_path [es_given $values path]]
    set ::es_needed_libraries [es_joined $::es_needed_libraries [es_given $values library_path]]
    foreach {name value} [es_given $values container_env] { es_inside $name $value }
}

# Return the entries of a bind list. The runtimes take a word after a comma for an option of the bind before it if it
# looks like one; a backslash before the comma belongs to the path.
proc es_split_binds {list} {
    set entries {}
    set open 0
    foreach word [split $list ,] {
        if {$word eq {}} { continue }
        if {[llength $entries] && ($open || [regexp {^(ro|rw)$|^image-src=|^id=} $word])} {
            lset entries end [lindex $entries end],$word
        } else {
            lappend entries $word
        }
        set open [string match {*\\} $word]
    }
    return $entries
}

proc es_target_of {entry} {
    lassign [split $entry :] place target
    if {$target ne {}} { set place $target }
    return [regsub {(.)/+$} $place {\1}]
}

# In EASYSIF_ADDED a ^, which no bind holds, stands for the directory of the entry before: see module.lua.
proc es_directory_of {entry} {
    set directory {}
    regexp {^[^:]*/} $entry directory
    return $directory
}

proc es_shortened {entries} {
    set short {}
    set former :
    foreach entry $entries {
        set directory [es_directory_of $entry]
        lappend short [expr {$directory eq $former ? "^[string range $entry [string length $directory] end]" : $entry}]
        set former $directory
    }
    return $short
}

proc es_users_binds {} {
    set seen {}
    set directory {}
    foreach entry [es_split_binds [es_env EASYSIF_ADDED]] {
        if {[string index $entry 0] eq {^}} { set entry $directory[string range $entry 1 end] }
        set directory [es_directory_of $entry]
        lappend seen $entry
    }
    set kept {}
    foreach name {SINGULARITY_BINDPATH APPTAINER_BINDPATH} {
        foreach entry [es_split_binds [es_env $name]] {
            if {$entry ni $seen} {
                lappend kept $entry
                lappend seen $entry
            }
        }
    }
    return $kept
}

proc es_bind {source target options} {
    if {![es_exists $source]} { return }
    set entry $source
    if {$target ne {}} { append entry : $target }
    if {$options ne {}} { append entry : $options }
    set place [es_target_of $entry]
    if {![dict exists $::es_state(targets) $place]} { dict set ::es_state(targets) $place $entry }
}

proc es_bind_each {need} {
    foreach entry [es_given [es_values_of $need] binds] {
        regexp {^([^:]*):?([^:]*):?(.*)$} $entry all source target options
        es_bind $source $target $options
        if {$need eq {FORCE} && [es_exists $source]} { lappend ::es_state(forced) [es_target_of $entry] }
    }
}

proc es_push_binds {} {
    set all {}
    set taken {}
    foreach entry [es_users_binds] {
        if {[es_target_of $entry] ni $::es_state(forced)} {
            lappend all $entry
            lappend taken [es_target_of $entry]
        }
    }
    dict for {place entry} $::es_state(targets) {
        if {$place ni $taken} {
            lappend ::es_state(binds) $entry
            lappend all $entry
        }
    }
    es_push SINGULARITY_BINDPATH [join $all ,]
    es_push APPTAINER_BINDPATH [join $all ,]
}

# EASYSIF_SET records what was set and EASYSIF_KEPT what the user had, as name=value;name=value, so that unloading
# takes back exactly that, whatever has changed meanwhile, and wrappers of other modules can undo it. What is set in the
# bind variables stands there by name only: EASYSIF_ADDED says what was added to them.
proc es_finish {} {
    set names $::es_state(order)
    set unloads [expr {[es_mode] eq {unload}}]
    if {![llength $names] || [es_comes_again] || $unloads && [es_env EASYSIF_SET] eq {}} { return }
    foreach variable {is kept had} { set $variable {} }
    foreach name $names {
        set is_bind [expr {$name in {SINGULARITY_BINDPATH APPTAINER_BINDPATH}}]
        lappend is [es_record $name [expr {$is_bind ? {} : [dict get $::es_state(pushed) $name]}]]
        if {[es_is_set $name]} {
            lappend kept [es_record $name [es_env $name]]
            dict set had $name [es_env $name]
        }
    }
    set users $had
    if {$unloads} {
        set names [dict keys [es_recorded EASYSIF_SET]]
        set users [es_recorded EASYSIF_KEPT]
    }
    foreach name $names {
        es_assign $name [es_given $::es_state(pushed) $name] [dict exists $users $name] [es_given $users $name]
    }
    foreach {name list separator} [list ADDED [es_shortened $::es_state(binds)] , KEPT $kept {;} SET $is {;}] {
        es_set EASYSIF_$name [join $list $separator]
    }
}

# Lmod keeps what the user has, which it looks for when all of this has run: then it must find it. Environment Modules
# would take apart what it keeps at each colon: there unloading gives back what is recorded.
proc es_assign {name value keeps users} {
    if {![es_is_lmod]} {
        # what it unsets keeps this value for modules that it loads in the same go: none, to be seen as unset
        if {[es_mode] eq {unload}} { set value {} }
        if {[es_mode] eq {unload} && $keeps} { unsetenv $name $users } else { setenv $name $value }
        return
    }
    set had [array get ::env $name]
    if {$keeps || [es_mode] eq {show} && $name in $::es_state(order)} {
        pushenv $name [es_out $value]
    } else {
        setenv $name [es_out $value]
    }
    unset -nocomplain ::env($name)
    array set ::env $had
}
