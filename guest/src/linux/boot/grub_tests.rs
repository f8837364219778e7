use super::*;

fn started(script: &str) -> Start {
    run(script, &BTreeMap::new(), &[], false)
        .start
        .expect("something is started")
}

const DEBIAN: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
if [ x$feature_default_font_path = xy ] ; then
   font=unicode
else
insmod part_gpt
    font="/usr/share/grub/unicode.pf2"
fi
if loadfont $font ; then
  set gfxmode=auto
fi
menuentry 'Debian GNU/Linux' --class debian --class gnu $menuentry_id_option 'gnulinux-simple-1-2' {
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_gpt
	set root='hd0,gpt1'
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 --hint-efi=hd0,gpt1  1-2
	else
	  search --no-floppy --fs-uuid --set=root 1-2
	fi
	echo	'Loading Linux 6.1.0-13-amd64 ...'
	linux	/boot/vmlinuz-6.1.0-13-amd64 root=UUID=1-2 ro  quiet
	initrd	/boot/initrd.img-6.1.0-13-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1-2' {
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-13-amd64' --class debian $menuentry_id_option 'gnulinux-6.1.0-13-advanced' {
		linux	/boot/vmlinuz-6.1.0-13-amd64 root=UUID=1-2 ro single
	}
	menuentry 'Debian GNU/Linux, with Linux 5.10' --class debian $menuentry_id_option 'gnulinux-5.10-advanced' {
		linux	/boot/vmlinuz-5.10 root=UUID=1-2 ro old
		initrd	/boot/early.cpio /boot/initrd.img-5.10
	}
}
"#;

#[test]
fn the_first_entry_of_debian() {
    let start = started(DEBIAN);
    assert_eq!(
        start.kernel.as_deref(),
        Some("/boot/vmlinuz-6.1.0-13-amd64")
    );
    assert_eq!(start.initrds, ["/boot/initrd.img-6.1.0-13-amd64"]);
    assert_eq!(start.command_line, "root=UUID=1-2 ro quiet");
    assert_eq!(start.root.found, Some(DeviceName::Uuid("1-2".into())));
    assert_eq!(start.title.as_deref(), Some("Debian GNU/Linux"));
}

#[test]
fn a_default_within_a_submenu() {
    for default in [
        "1>1",
        "gnulinux-advanced-1-2>gnulinux-5.10-advanced",
        "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 5.10",
    ] {
        let script = DEBIAN.replace("set default=\"0\"", &format!("set default=\"{default}\""));
        let start = started(&script);
        assert_eq!(
            start.kernel.as_deref(),
            Some("/boot/vmlinuz-5.10"),
            "{default}"
        );
        assert_eq!(start.initrds.len(), 2);
    }
}

#[test]
fn the_default_that_was_saved() {
    let script = DEBIAN.replace("set default=\"0\"", "set default=\"${saved_entry}\"");
    let environment = BTreeMap::from([("saved_entry".to_owned(), "1>1".to_owned())]);
    let outcome = run(&script, &environment, &[], false);
    assert_eq!(
        outcome.start.and_then(|s| s.kernel).as_deref(),
        Some("/boot/vmlinuz-5.10")
    );
    assert_eq!((outcome.entries, outcome.unknown_default), (2, None));
    let environment = BTreeMap::from([("saved_entry".to_owned(), "gone".to_owned())]);
    let outcome = run(&script, &environment, &[], false);
    assert!(outcome.start.is_some());
    assert_eq!(outcome.unknown_default.as_deref(), Some("gone"));
}

#[test]
fn a_script_without_entries() {
    let script = "serial --unit=0\nlinux /vmlinuz root=UUID=5a7e ro console=tty0 console=ttyS0,115200\ninitrd /initrd.img\nboot\n";
    let start = started(script);
    assert_eq!(
        start.command_line,
        "root=UUID=5a7e ro console=tty0 console=ttyS0,115200"
    );
    assert_eq!(start.initrds, ["/initrd.img"]);
}

#[test]
fn a_script_that_leads_to_another() {
    let script = "search.fs_uuid 1-2 root hd0,gpt2 \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n";
    let outcome = run(script, &BTreeMap::new(), &[], true);
    let (path, root) = outcome.configuration.expect("it leads on");
    assert_eq!(path, "(sought/UUID=1-2)/boot/grub/grub.cfg");
    assert_eq!(root.found, Some(DeviceName::Uuid("1-2".into())));
}

#[test]
fn entries_of_the_boot_loader_specification() {
    let script = r#"
if [ "${next_entry}" ] ; then set default="${next_entry}"; else set default="${saved_entry}"; fi
if [ -z "${kernelopts}" ]; then
  set kernelopts="root=UUID=fallback ro "
fi
insmod blscfg
blscfg
"#;
    let entry = |version: &str| OutsideEntry {
        id: format!("abc-{version}"),
        title: format!("Rocky Linux ({version})"),
        kernel: format!("/vmlinuz-{version}"),
        initrds: vec![format!("/initramfs-{version}.img")],
        options: "$kernelopts $tuned_params quiet".into(),
    };
    let outside = [entry("5.14.0"), entry("5.13.0")];
    let environment = BTreeMap::from([
        ("saved_entry".to_owned(), "abc-5.13.0".to_owned()),
        (
            "kernelopts".to_owned(),
            "root=/dev/mapper/rl-root ro".to_owned(),
        ),
    ]);
    let start = run(script, &environment, &outside, true)
        .start
        .expect("started");
    assert_eq!(start.kernel.as_deref(), Some("/vmlinuz-5.13.0"));
    assert_eq!(start.command_line, "root=/dev/mapper/rl-root ro quiet");
    let start = run(script, &BTreeMap::new(), &outside, true)
        .start
        .expect("started");
    assert_eq!(start.kernel.as_deref(), Some("/vmlinuz-5.14.0"));
    assert_eq!(start.command_line, "root=UUID=fallback ro quiet");
}

#[test]
fn ubuntus_cloud_images_have_an_initial_file_system_in_the_end() {
    let script = r#"menuentry 'Ubuntu' {
  if [ "${initrdfail}" = 1 ]; then
    linux /boot/vmlinuz root=PARTUUID=1 ro
    initrd /boot/initrd.img
  else
    linux /boot/vmlinuz root=PARTUUID=1 ro panic=-1
  fi
  initrdfail
}"#;
    assert_eq!(started(script).initrds, ["/boot/initrd.img"]);
}

proptest::proptest! {
    #[test]
    fn any_script_runs(words in "(if|then|fi|else|menuentry|submenu|\\{|\\}|;|\n|\\$x|\\[|\\]|-z|=|set x=y|set default=0>0>0|linux|initrd|blscfg|search| ){0,60}") {
        let _ = run(&words, &BTreeMap::new(), &[], false);
    }
}
