from circuit_script.cli import main

main()
